// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"path"
	"slices"
)

// baselineRead and baselineWrite are the paths that programs need to start. OpenShell's
// lists have no /bin, /sbin and /lib64, because its images link them to /usr.
var (
	baselineRead  = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/app", "/var/log", "/proc", "/dev/urandom"}
	baselineWrite = []string{"/tmp", "/dev/null"}
)

// Baseline returns the paths that are added to filesystem_policy: those of the baseline that
// the policy does not list, so that a listed path keeps its access, and that lie in no listed
// path with at least that access, because they would add nothing. As in OpenShell, none
// are added to a policy with filesystem_policy and without network rules. Without
// filesystem_policy they are always added: no program could start.
func (p *Policy) Baseline() (readOnly, readWrite []string) {
	f := &p.Filesystem
	if f.Line != 0 && len(p.Network) == 0 {
		return nil, nil
	}
	listed, writable := map[string]bool{}, map[string]bool{}
	for _, name := range f.ReadOnly {
		listed[path.Clean(name)] = true
	}
	for _, name := range f.ReadWrite {
		listed[path.Clean(name)], writable[path.Clean(name)] = true, true
	}
	missing := func(paths []string, covering map[string]bool) []string {
		return slices.DeleteFunc(slices.Clone(paths), func(name string) bool { return listed[name] || above(covering, name) != "" })
	}
	return missing(baselineRead, listed), missing(baselineWrite, writable)
}
