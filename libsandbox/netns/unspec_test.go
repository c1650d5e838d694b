// SPDX-License-Identifier: Apache-2.0

package netns

import "unsafe"

var zeroSockaddr [16]byte

// unspec returns a sockaddr of family AF_UNSPEC, which disconnects a socket.
func unspec() uintptr { return uintptr(unsafe.Pointer(&zeroSockaddr)) }
