// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"path"
	"slices"
)

// baselineRead and baselineWrite are the paths that programs need to start. OpenShell's
// lists do not have /bin, /sbin and /lib64, because in its images they are links to /usr.
var (
	baselineRead  = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/app", "/var/log", "/proc", "/dev/urandom"}
	baselineWrite = []string{"/tmp", "/dev/null"}
)

// Baseline returns the paths that are added to filesystem_policy. It omits a path that the
// policy lists, so that the listed access applies, and a path below a listed one with at
// least the same access, which would add nothing. As in OpenShell, nothing is added if the
// policy has filesystem_policy but no network rules. If filesystem_policy is absent, the
// paths are always added: no program could start without them.
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
