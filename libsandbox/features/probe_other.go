// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package features

import "errors"

// Probe fails: sandboxes exist only on Linux.
func Probe() (Features, error) { return Features{}, errors.New("sandboxes need a Linux kernel") }
