// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
)

func TestOrder(t *testing.T) {
	app := &cli.App{
		Flags:    []cli.Flag{&cli.StringFlag{Name: "root"}, &cli.BoolFlag{Name: "debug"}},
		Commands: []*cli.Command{updateCommand, deleteCommand, execCommand, psCommand},
	}
	for _, tc := range []struct {
		name               string
		args, want, global []string
	}{
		{"nothing", []string{"rt"}, []string{"rt"}, []string{}},
		{"flags first already", []string{"rt", "update", "--memory", "1", "c"}, []string{"rt", "update", "--memory", "1", "c"}, []string{}},
		{"value after the argument", []string{"rt", "update", "c", "--memory", "1"}, []string{"rt", "update", "--memory", "1", "c"}, []string{}},
		{"negative value", []string{"rt", "update", "c", "--memory", "-1"}, []string{"rt", "update", "--memory", "-1", "c"}, []string{}},
		{"value of dash", []string{"rt", "update", "-r", "-", "c"}, []string{"rt", "update", "-r", "-", "c"}, []string{}},
		{"inline value", []string{"rt", "update", "c", "--memory=1"}, []string{"rt", "update", "--memory=1", "c"}, []string{}},
		{"value missing", []string{"rt", "update", "c", "--memory"}, []string{"rt", "update", "--memory", "c"}, []string{}},
		{"switch takes no value", []string{"rt", "delete", "-f", "c"}, []string{"rt", "delete", "-f", "c"}, []string{}},
		{"switch after the argument", []string{"rt", "delete", "c", "--force"}, []string{"rt", "delete", "--force", "c"}, []string{}},
		{"after two dashes nothing moves", []string{"rt", "delete", "--", "c", "--force"}, []string{"rt", "delete", "--", "c", "--force"}, []string{}},
		{"unknown flag stays", []string{"rt", "delete", "c", "-9"}, []string{"rt", "delete", "c", "-9"}, []string{}},
		{"exec keeps its program's flags", []string{"rt", "exec", "c", "ls", "-e", "x"}, []string{"rt", "exec", "c", "ls", "-e", "x"}, []string{}},
		{"ps keeps ps's flags", []string{"rt", "ps", "c", "-f"}, []string{"rt", "ps", "c", "-f"}, []string{}},
		{"global flags", []string{"rt", "--root", "update", "--debug", "delete", "c", "-f"}, []string{"rt", "--root", "update", "--debug", "delete", "-f", "c"}, []string{"--root", "update", "--debug"}},
		{"unknown global flag", []string{"rt", "--version"}, []string{"rt", "--version"}, []string{"--version"}},
		{"unknown verb", []string{"rt", "--debug", "foo", "c", "-f"}, []string{"rt", "--debug", "foo", "c", "-f"}, []string{"--debug"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, global := order(app, tc.args)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tc.global, global); d != "" {
				t.Errorf("global: %s", d)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"-1": -1, "64m": 64 << 20,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	if got, err := parseSize("-2"); err == nil {
		t.Errorf("-2 is %d, want an error", got)
	}
}

func TestSubCgroups(t *testing.T) {
	for _, tc := range []struct {
		name    string
		args    []string
		want    map[string]string
		wantErr string
	}{
		{name: "none"},
		{name: "v2", args: []string{"a/b"}, want: map[string]string{"": "a/b"}},
		{name: "v1", args: []string{"cpu,cpuacct:a", "memory:b"}, want: map[string]string{"cpu": "a", "cpuacct": "a", "memory": "b"}},
		{name: "two for v2", args: []string{"a", "b"}, wantErr: "invalid --cgroup argument: a (missing <controller>: prefix)"},
		{name: "empty controller", args: []string{":a"}, wantErr: "invalid --cgroup argument: :a (empty <controller> prefix)"},
		{name: "twice", args: []string{"cpu:a", "cpu:b"}, wantErr: "invalid --cgroup argument(s): controller cpu specified multiple times"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := subCgroups(tc.args)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if d := cmp.Diff(tc.wantErr, text); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCheckProcess(t *testing.T) {
	for name, tc := range map[string]struct {
		p    *specs.Process
		want string
	}{
		"whole":       {&specs.Process{Cwd: "/", Args: []string{"a"}}, ""},
		"none":        {nil, "process property must not be empty"},
		"no folder":   {&specs.Process{Args: []string{"a"}}, "Cwd property must not be empty"},
		"elsewhere":   {&specs.Process{Cwd: "a", Args: []string{"a"}}, "Cwd must be an absolute path"},
		"no program":  {&specs.Process{Cwd: "/"}, "args must not be empty"},
		"NUL in args": {&specs.Process{Cwd: "/", Args: []string{"a", "b\x00c"}}, "args must not contain a NUL byte"},
	} {
		got := ""
		if err := checkProcess(tc.p); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestReadJSON(t *testing.T) {
	var s specs.Spec
	if err := readJSON(strings.NewReader(`{"hostname": "a"} and more`), "file", &s); err != nil || s.Hostname != "a" {
		t.Errorf("hostname %q, %v", s.Hostname, err)
	}
	long := io.MultiReader(strings.NewReader(`{"hostname": "`), strings.NewReader(strings.Repeat("x", maxSpec)), strings.NewReader(`"}`))
	if err := readJSON(long, "file", &s); err == nil || err.Error() != "file is larger than 16777216 bytes" {
		t.Errorf("a long file: %v", err)
	}
	if err := readJSON(strings.NewReader("{"), "file", &s); err == nil || err.Error() != "file: unexpected EOF" {
		t.Errorf("half a file: %v", err)
	}
}
