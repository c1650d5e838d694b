// SPDX-License-Identifier: Apache-2.0

package seccomp

import "fmt"

// Errno is an error number of Linux on the architectures that the filter supports. A test
// compares the numbers with x/sys/unix.
type Errno uint16

// The errors of refused calls.
const (
	EPERM           Errno = 1
	ENOENT          Errno = 2
	EIO             Errno = 5
	ENOTTY          Errno = 25
	ENOSYS          Errno = 38
	ENOPROTOOPT     Errno = 92
	EPROTONOSUPPORT Errno = 93
	ESOCKTNOSUPPORT Errno = 94
	EOPNOTSUPP      Errno = 95
	EAFNOSUPPORT    Errno = 97
)

var errnoNames = map[Errno]string{
	EPERM: "EPERM", ENOENT: "ENOENT", EIO: "EIO", ENOTTY: "ENOTTY", ENOSYS: "ENOSYS", ENOPROTOOPT: "ENOPROTOOPT",
	EPROTONOSUPPORT: "EPROTONOSUPPORT", ESOCKTNOSUPPORT: "ESOCKTNOSUPPORT", EOPNOTSUPP: "EOPNOTSUPP", EAFNOSUPPORT: "EAFNOSUPPORT",
}

// String returns the name of the error in errno(3).
func (e Errno) String() string {
	if name, ok := errnoNames[e]; ok {
		return name
	}
	return fmt.Sprintf("errno %d", uint16(e))
}
