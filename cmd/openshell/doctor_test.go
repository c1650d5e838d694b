// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/libsandbox/features"
)

func TestKernelChecks(t *testing.T) {
	whole := features.Features{LandlockABI: 7, Cgroup: features.CgroupUnified, Overlay: true}
	for _, tc := range []struct {
		name, check string
		change      func(*features.Features)
		want        grade
	}{
		{"all there", "landlock", func(*features.Features) {}, gradeOK},
		{"no Landlock", "landlock", func(f *features.Features) { f.LandlockABI = 0 }, gradeMissing},
		{"Landlock without scopes", "landlock", func(f *features.Features) { f.LandlockABI = 5 }, gradeLimited},
		{"Landlock newer than known", "landlock", func(f *features.Features) { f.LandlockABI = 99 }, gradeOK},
		{"no seccomp", "seccomp", func(f *features.Features) { f.SeccompError = "no" }, gradeMissing},
		{"no nf_tables", "nf_tables", func(f *features.Features) { f.NFTablesError = "no" }, gradeMissing},
		{"no cgroup", "cgroup", func(f *features.Features) { f.Cgroup = features.CgroupNone }, gradeMissing},
		{"no overlay", "overlay", func(f *features.Features) { f.Overlay = false }, gradeLimited},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := whole
			tc.change(&f)
			for _, k := range kernelChecks(f) {
				want := gradeOK
				if k.Name == tc.check {
					want = tc.want
				}
				if k.Grade != want || (k.Grade != gradeOK) != (k.Fix != "") {
					t.Errorf("%+v, want %s, and a fix where one is needed", k, want)
				}
			}
		})
	}
}

func TestProgramCheck(t *testing.T) {
	dir := t.TempDir()
	for _, p := range programs {
		if got := programCheck(dir); got.Grade != gradeMissing || !strings.Contains(got.Found, p) {
			t.Errorf("without %s: %+v", p, got)
		}
		if err := os.WriteFile(filepath.Join(dir, p), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := programCheck(dir); got.Grade != gradeOK {
		t.Errorf("%+v", got)
	}
}

func TestDockerCheck(t *testing.T) {
	for _, tc := range []struct {
		name, config string
		want         grade
		found        string
	}{
		{"registered twice", `{"runtimes":{"b":{"path":"/x/openshell-runtime"},"a":{"path":"/y/openshell-runtime"},"runc":{"path":"runc"}}}`, gradeOK, "registered as a b"},
		{"another runtime", `{"runtimes":{"x":{"path":"/x/crun"}}}`, gradeLimited, "not registered"},
		{"broken", `{`, gradeLimited, "unexpected end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "daemon.json")
			if err := os.WriteFile(file, []byte(tc.config), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := dockerCheck(file, "/opt"); got.Grade != tc.want || !strings.Contains(got.Found, tc.found) {
				t.Errorf("%+v", got)
			}
		})
	}
	if got := dockerCheck(filepath.Join(t.TempDir(), "none"), "/opt"); got.Grade != gradeLimited || !strings.Contains(got.Fix, `"/opt/openshell-runtime"`) {
		t.Errorf("%+v", got)
	}
}

func TestReadProcess(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"whole", "NoNewPrivs:\t1\nSeccomp_filters:\t2\nCapBnd:\t0000000000000401\n", ""},
		{"no capabilities line", "NoNewPrivs:\t1\nSeccomp_filters:\t2\n", "CapBnd"},
		{"no filters line", "CapBnd:\t0\n", "Seccomp_filters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "status")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := readProcess(file)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			if err != nil || !p.NoNewPrivs || p.SeccompFilters != 2 || strings.Join(p.Capabilities, " ") != "CAP_CHOWN CAP_NET_BIND_SERVICE" {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

// TestConfigCheckIsOneLine: errors of several lines are one line of doctor's output.
func TestConfigCheckIsOneLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nunknown_field: x\nother_field: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := configCheck(file, features.Features{})
	if got.Grade != gradeMissing || strings.Contains(got.Found, `\n`) || !strings.Contains(got.Found, "other_field") {
		t.Errorf("%+v", got)
	}
}
