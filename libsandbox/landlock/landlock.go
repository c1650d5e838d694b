// SPDX-License-Identifier: Apache-2.0

// Package landlock describes the file access of a sandbox as a value, a [Ruleset] for one
// Landlock ABI: the rights that are denied everywhere (handled) and the paths below which
// they are granted (rules). [New] reduces rules and scopes to what the kernel's ABI
// supports. The package is pure; hooks/launch applies the ruleset inside the container.
//
// Landlock does not hide names, does not restrict stat(2), and covers only what the
// kernel's ABI knows. See https://docs.kernel.org/userspace-api/landlock.html
package landlock

import ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

// Access is a set of LANDLOCK_ACCESS_FS_* rights.
type Access uint64

// The rights for the two lists of a policy, before reduction to an ABI.
const (
	// ReadOnly allows reading and executing files, and listing folders.
	ReadOnly Access = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSReadDir
	// ReadWrite has all file rights of ABI 5.
	ReadWrite Access = 1<<16 - 1
	// fileRights are the rights that apply to files other than folders.
	fileRights Access = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSReadFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev
)

// Scopes is a set of LANDLOCK_SCOPE_* flags: the objects that a process cannot reach
// outside its domain. Each process that launch starts in a container has its own domain, so
// a scope also separates an exec from the container's other processes.
type Scopes uint64

// The scopes of ABI 6.
const (
	// ScopeAbstractSockets is for a network namespace that is shared with other processes.
	ScopeAbstractSockets Scopes = 1 << iota
	// ScopeSignals is for a PID namespace that is shared with other processes.
	ScopeSignals
)

// MaxABI is the newest ABI that this package knows. A newer kernel is used as if it had
// this one.
const MaxABI = 7

// handled has the file rights that each ABI knows.
var handled = [MaxABI + 1]Access{
	1: 1<<13 - 1,
	2: 1<<14 - 1, // REFER
	3: 1<<15 - 1, // TRUNCATE
	4: 1<<15 - 1, // (TCP ports)
	5: 1<<16 - 1, // IOCTL_DEV
	6: 1<<16 - 1, // (scopes)
	7: 1<<16 - 1, // (audit flags)
}

// Rule grants rights below one path of the container.
type Rule struct {
	Path   string `json:"path"`
	Access Access `json:"access"`
	// Dev and Ino, if Ino is not 0, identify the file that the path named before the
	// workload ran. If it names another file now, the rule grants nothing.
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
	// Origin is the source of the rule.
	Origin Origin `json:"origin,omitempty"`
}

// Origin is the source of a rule.
type Origin string

// The origins.
const (
	// OriginPolicy is a path of filesystem_policy, or the working directory. It is the zero
	// value.
	OriginPolicy Origin = ""
	// OriginBaseline is a path of the baseline that the policy does not list. The rule
	// grants nothing if the path contains a symbolic link. (The links /bin and /lib into
	// /usr are covered by the rule for /usr.)
	OriginBaseline Origin = "baseline"
	// OriginRuntime is a path that every sandbox has, such as a device.
	OriginRuntime Origin = "runtime"
)

// Ruleset is what launch applies.
type Ruleset struct {
	// ABI is the kernel's ABI, at most MaxABI. 0 means that there is no Landlock.
	ABI     int    `json:"abi"`
	Handled Access `json:"handled"`
	Scoped  Scopes `json:"scoped"`
	Rules   []Rule `json:"rules"`
	// Hard makes launch fail if no rule of the policy or the baseline can be applied. A
	// single rule whose path cannot be opened is skipped, which grants nothing.
	Hard bool `json:"hard"`
	// Complete makes launch fail if the path of one of the policy's own rules cannot be
	// opened.
	Complete bool `json:"complete,omitempty"`
}

// New returns the ruleset for a kernel with the given ABI. It reduces rules and scopes to
// what that ABI handles.
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

// ForFile returns the rights of a that the kernel accepts for a file other than a folder.
func (a Access) ForFile() Access { return a & fileRights }
