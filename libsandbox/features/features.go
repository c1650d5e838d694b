// SPDX-License-Identifier: Apache-2.0

// Package features finds out what the kernel offers to sandboxes, and returns it as plain
// values. It does not decide what a sandbox needs.
package features

// CgroupMode is the way in which control groups are mounted.
type CgroupMode string

// The modes. The zero value means that the mode is unknown.
const (
	CgroupNone    CgroupMode = "none"
	CgroupLegacy  CgroupMode = "legacy"  // only version 1
	CgroupHybrid  CgroupMode = "hybrid"  // version 1 and version 2
	CgroupUnified CgroupMode = "unified" // version 2 alone
)

// Features are the properties of the kernel. An empty "Error" field means that the feature
// works.
type Features struct {
	// Kernel is the kernel's release, as uname prints it.
	Kernel string `json:"kernel"`
	// LandlockABI is the ABI of Landlock; 0 if there is none.
	LandlockABI int `json:"landlock_abi"`
	// SeccompError and NFTablesError say why the feature does not work.
	SeccompError  string     `json:"seccomp_error,omitempty"`
	NFTablesError string     `json:"nf_tables_error,omitempty"`
	Cgroup        CgroupMode `json:"cgroup"`
	// Overlay is true if overlayfs is available now, without loading a module.
	Overlay bool `json:"overlay"`
}
