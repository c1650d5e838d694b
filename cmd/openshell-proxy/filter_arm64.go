// SPDX-License-Identifier: Apache-2.0

package main

import "golang.org/x/sys/unix"

// arch is the one table of system calls that the worker may use.
const arch = unix.AUDIT_ARCH_AARCH64
