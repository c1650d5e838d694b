// SPDX-License-Identifier: Apache-2.0

package netns

import "unsafe"

var zeroSockaddr [16]byte

// unspec is a sockaddr of family AF_UNSPEC, which dissolves a connection.
func unspec() uintptr { return uintptr(unsafe.Pointer(&zeroSockaddr)) }
