// SPDX-License-Identifier: Apache-2.0

// Package landlock is the file half of a sandbox as a value: which rights are
// taken away everywhere (handled) and which are given back where (rules), for
// one Landlock ABI. It is pure; launch applies it inside the container.
//
// Landlock does not hide names, does not stop stat(2), and covers only what the
// kernel's ABI knows. https://docs.kernel.org/userspace-api/landlock.html
package landlock

import ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

// Access is a set of LANDLOCK_ACCESS_FS_* rights.
type Access uint64

// Rights of policy's two lists, before reduction to an ABI.
const (
	// ReadOnly lets files be read and run, and folders be listed.
	ReadOnly Access = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSReadDir
	// ReadWrite is every file right of ABI 5.
	ReadWrite Access = 1<<16 - 1
	// fileRights are those that mean something on what is not a folder.
	fileRights Access = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSReadFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev
)

// Scopes is a set of LANDLOCK_SCOPE_*: what does not leave a process's domain. Each
// process of a container has its own domain, so a scope also separates an exec from the
// container's other processes.
type Scopes uint64

// The scopes of ABI 6.
const (
	// ScopeAbstractSockets is for a network namespace that others share.
	ScopeAbstractSockets Scopes = 1 << iota
	// ScopeSignals is for a PID namespace that others share.
	ScopeSignals
)

// MaxABI is the newest ABI whose facts are known here; a newer kernel is used
// as this one.
const MaxABI = 7

// handled says which file rights each ABI knows.
var handled = [MaxABI + 1]Access{
	1: 1<<13 - 1,
	2: 1<<14 - 1, // REFER
	3: 1<<15 - 1, // TRUNCATE
	4: 1<<15 - 1, // (TCP ports)
	5: 1<<16 - 1, // IOCTL_DEV
	6: 1<<16 - 1, // (scopes)
	7: 1<<16 - 1, // (audit flags)
}

// Rule gives rights back below one path of the container.
type Rule struct {
	Path   string `json:"path"`
	Access Access `json:"access"`
	// Dev and Ino, if Ino is not 0, are the file the path named before the
	// workload ran: the rule gives nothing if it names another by now.
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
	// Origin says who gives the rights.
	Origin Origin `json:"origin,omitempty"`
}

// Origin is who gives the rights of a rule.
type Origin string

// The origins.
const (
	// OriginPolicy is a path of filesystem_policy, or the working directory.
	OriginPolicy Origin = ""
	// OriginBaseline is a path of the baseline that the policy does not list. It gives no
	// rights if it has a symbolic link in it. (Links of /bin and /lib into /usr are covered
	// by the rule for /usr.)
	OriginBaseline Origin = "baseline"
	// OriginRuntime is a path that every sandbox has, such as a device.
	OriginRuntime Origin = "runtime"
)

// Ruleset is what launch applies.
type Ruleset struct {
	// ABI is the kernel's, at most MaxABI; 0 is no Landlock.
	ABI     int    `json:"abi"`
	Handled Access `json:"handled"`
	Scoped  Scopes `json:"scoped"`
	Rules   []Rule `json:"rules"`
	// Hard fails if no rule of the policy or the baseline can be applied. A rule whose path
	// cannot be opened is skipped, which gives no rights.
	Hard bool `json:"hard"`
	// Complete fails if the path of one of the policy's own rules cannot be opened.
	Complete bool `json:"complete,omitempty"`
}

// New is the ruleset for a kernel of the given ABI: rules and scopes are reduced to what
// that ABI handles.
func New(abi int, rules []Rule, scopes Scopes) Ruleset {
	abi = min(max(abi, 0), MaxABI)
	r := Ruleset{ABI: abi, Handled: handled[abi]}
	if abi >= 6 {
		r.Scoped = scopes
	}
	for _, rule := range rules {
		rule.Access &= r.Handled
		r.Rules = append(r.Rules, rule)
	}
	return r
}

// ForFile is the part of a that the kernel accepts for what is not a folder.
func (a Access) ForFile() Access { return a & fileRights }
