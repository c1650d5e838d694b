// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// connect names the socket through its folder's descriptor: a container engine's
// path may be longer than a socket's address.
func connect(ctx context.Context, socket string) (net.Conn, error) {
	folder, err := os.OpenFile(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the control socket's folder: %w", err)
	}
	defer folder.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", filepath.Join("/proc/self/fd", strconv.Itoa(int(folder.Fd())), filepath.Base(socket)))
}
