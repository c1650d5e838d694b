// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the only cgo door: joins namespaces before Go starts
)

// init is libcontainer's second half: this program started again inside the
// container's namespaces. It never returns.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
}
