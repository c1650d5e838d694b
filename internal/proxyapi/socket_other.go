// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package proxyapi

import (
	"context"
	"errors"
	"net"
)

func connect(context.Context, string) (net.Conn, error) {
	return nil, errors.New("sandboxes need a Linux kernel")
}
