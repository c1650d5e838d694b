// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups/systemd"
)

// rootlessCgroups says whether errors of permission on cgroups are to be
// ignored. What decides is `--rootless`, else who runs the runtime.
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
		// A systemd that belongs to root in here manages cgroups as the host's
		// does; one that cannot be asked is taken for such.
		uid, err := systemd.DetectUID()
		return err == nil && uid != 0, nil
	}
	return true, nil
}

// InUserNamespace says whether this process is in a user namespace of its own.
func InUserNamespace() bool {
	const hostInode = "user:[4026531837]" // PROC_USER_INIT_INO
	link, err := os.Readlink("/proc/self/ns/user")
	return err == nil && link != hostInode
}
