// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// machineName is the first of machineNames.
const machineName = "host.openshell.internal"

// machineNames are the names of the machine that runs the sandbox in OpenShell and in
// container engines.
var machineNames = []string{machineName, "host.docker.internal", "host.containers.internal"}

// MachineNames returns the names of the machine that runs the sandbox. An endpoint matches
// such a name only if its host is that name, without a wildcard. The name may resolve to
// the addresses in [CompileOptions.Machine], the loopback address included.
func MachineNames() []string { return slices.Clone(machineNames) }

// IsMachine reports whether host is a name of the machine that runs the sandbox. host is in
// the spelling of [NormalizeHost].
func IsMachine(host string) bool { return slices.Contains(machineNames, host) }

// Unreachable returns the reason why every connection to host is refused even if an
// endpoint allows it, or "" if there is none. host is in the spelling of [NormalizeHost].
func Unreachable(host string) string {
	if a, err := netip.ParseAddr(host); err == nil && Sandbox(host) == "" && alwaysBlocked(effective(a)) {
		return host + " is always blocked: a loopback, link-local, unspecified or metadata address"
	}
	return ""
}

// IsLocalhost reports whether host is a name of the loopback address (RFC 6761, section
// 6.3). host is in the spelling of [NormalizeHost].
func IsLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Sandbox returns the reason why connections to host never leave the sandbox and are
// therefore allowed by any policy, or "" if host is not a name or an address of the
// sandbox. host is in the spelling of [NormalizeHost]. Sandbox does not know the sandbox's
// host name or hosts file.
func Sandbox(host string) string {
	a, err := netip.ParseAddr(host)
	if err == nil && (a.IsLoopback() || a.IsUnspecified()) || IsLocalhost(host) {
		return host + " is the sandbox itself, which its programs reach without the policy; a server on the machine that runs the sandbox is " + machineName + ", with its port"
	}
	return ""
}
