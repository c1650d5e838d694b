// SPDX-License-Identifier: Apache-2.0

// Package features is what this kernel offers a sandbox, asked once and kept as
// plain values. It knows nothing of what anybody wants.
package features

// CgroupMode is how control groups are mounted.
type CgroupMode string

// The modes; the zero value is none that is known.
const (
	CgroupNone    CgroupMode = "none"
	CgroupLegacy  CgroupMode = "legacy"  // version 1 alone
	CgroupHybrid  CgroupMode = "hybrid"  // version 1 with version 2 beside it
	CgroupUnified CgroupMode = "unified" // version 2 alone
)

// Features are the facts. Empty "Error" fields mean that the thing works.
type Features struct {
	// Kernel is uname's release.
	Kernel string `json:"kernel"`
	// LandlockABI is 0 where there is no Landlock.
	LandlockABI int `json:"landlock_abi"`
	// SeccompError and NFTablesError say why there is none.
	SeccompError  string     `json:"seccomp_error,omitempty"`
	NFTablesError string     `json:"nf_tables_error,omitempty"`
	Cgroup        CgroupMode `json:"cgroup"`
	// Overlay says that overlayfs is there now, not that a module could bring it.
	Overlay bool `json:"overlay"`
}
