// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

import "errors"

func puppet(_, _, _ string) { report("", errors.ErrUnsupported) }
