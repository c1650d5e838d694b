// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups/systemd"
)

// rootlessCgroups reports whether errors of permission on cgroups are ignored. The value of
// --rootless decides; for auto, the user who runs the runtime.
func rootlessCgroups(flag string, systemdCgroup bool) (bool, error) {
	if flag != "" && !strings.EqualFold(flag, "auto") {
		yes, err := strconv.ParseBool(flag)
		if err != nil {
			return false, fmt.Errorf("--rootless %s: want true, false or auto", flag)
		}
		return yes, nil
	}
	if os.Geteuid() != 0 {
		return true, nil
	}
	if !InUserNamespace() {
		return false, nil
	}
	if systemdCgroup {
		// A systemd whose user is root in this namespace manages cgroups as the host's
		// does. So it is assumed if systemd cannot be asked.
		uid, err := systemd.DetectUID()
		return err == nil && uid != 0, nil
	}
	return true, nil
}

// InUserNamespace reports whether this process is in a user namespace other than the initial
// one.
func InUserNamespace() bool {
	const hostInode = "user:[4026531837]" // PROC_USER_INIT_INO
	link, err := os.Readlink("/proc/self/ns/user")
	return err == nil && link != hostInode
}
