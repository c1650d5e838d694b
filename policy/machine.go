// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// machineName is the first of machineNames.
const machineName = "host.openshell.internal"

// machineNames are the names of the machine that runs the sandbox, as OpenShell and
// container engines write them.
var machineNames = []string{machineName, "host.docker.internal", "host.containers.internal"}

// MachineNames returns the names of the machine that runs the sandbox. Only an endpoint
// with such a name written out covers it. The name may resolve to the addresses of
// CompileOptions.Machine, the loopback included.
func MachineNames() []string { return slices.Clone(machineNames) }

// IsMachine reports whether host, as NormalizeHost spells it, is a name of the machine
// that runs the sandbox.
func IsMachine(host string) bool { return slices.Contains(machineNames, host) }

// Unreachable returns why every connection to host is refused although an endpoint may
// allow it, "" if not. host is as NormalizeHost spells it.
func Unreachable(host string) string {
	if a, err := netip.ParseAddr(host); err == nil && Sandbox(host) == "" && alwaysBlocked(effective(a)) {
		return host + " is always blocked: a loopback, link-local, unspecified or metadata address"
	}
	return ""
}

// IsLocalhost reports whether host, as NormalizeHost spells it, is a name of the loopback
// (RFC 6761, section 6.3).
func IsLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Sandbox returns why every connection to host is allowed whatever the policy says, ""
// unless host is a name or an address of the sandbox itself. host is as NormalizeHost spells
// it. The sandbox's host name and the names in its hosts file are not known here.
func Sandbox(host string) string {
	a, err := netip.ParseAddr(host)
	if err == nil && (a.IsLoopback() || a.IsUnspecified()) || IsLocalhost(host) {
		return host + " is the sandbox itself, which its programs reach without the policy; a server on the machine that runs the sandbox is " + machineName + ", with its port"
	}
	return ""
}
