// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/libsandbox/state"
)

func TestPick(t *testing.T) {
	top := t.TempDir()
	a, b, none := filepath.Join(top, "a"), filepath.Join(top, "b"), filepath.Join(top, "none")
	for _, s := range []sandbox{{a, "box"}, {a, "box-two"}, {a, "4f3a11"}, {b, "4f3b22"}, {a, "twice"}, {b, "twice"}} {
		if err := os.MkdirAll(state.Dir(s.root, s.id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, ask string
		want      sandbox
		err       string
	}{
		{"exact beats prefix", "box", sandbox{a, "box"}, ""},
		{"unique prefix", "4f3b", sandbox{b, "4f3b22"}, ""},
		{"ambiguous prefix", "4f3", sandbox{}, "means more than one sandbox"},
		{"same ID under two roots", "twice", sandbox{}, "means more than one sandbox"},
		{"unknown", "web", sandbox{}, "an engine's names are not known here"},
		{"empty is no prefix", "", sandbox{}, "no sandbox has the ID"},
		{"a way up is no ID", "../a", sandbox{}, "no sandbox has the ID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := pick([]string{a, b, none}, tc.ask)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// TestSandboxElsewhere: a sandbox that runs under a root that was not searched is not
// said to have ended.
func TestSandboxElsewhere(t *testing.T) {
	top := t.TempDir()
	h, err := decisionlog.Hold(filepath.Join(top, "logs/box"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(top, "config.yaml")
	if err := os.WriteFile(config, []byte("log_dir: "+filepath.Join(top, "logs")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		app := &cli.App{Flags: sandboxFlags(), Action: onSandbox(func(*cli.Context, sandbox) error { return nil }), ExitErrHandler: func(*cli.Context, error) {}}
		return fmt.Sprint(app.Run([]string{"openshell", "--root", top, "--config", config, "box"}))
	}
	if got := ask(); !strings.HasPrefix(got, "sandbox box runs, but its state is elsewhere: give the runtime's --root; no sandbox has the ID") {
		t.Error(got)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "sandbox box has ended; its records: openshell logs box --config "+config {
		t.Error(got)
	}
	defer func(d string) { dockerContainers = d }(dockerContainers)
	dockerContainers = filepath.Join(top, "containers")
	if err := os.MkdirAll(filepath.Join(dockerContainers, "box"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := ask(); !strings.HasPrefix(got, "sandbox box has ended; start it again: docker start box; its records: ") {
		t.Error(got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"/a b/ü":                "/a b/ü",
		"/x\x1b[2J":             `/x\x1b[2J`,
		"/a\nfake line":         `/a\nfake line`,
		"/\u202egnp.exe":        `/\u202egnp.exe`,
		"/bad\xff":              `/bad\xff`,
		`/"quoted" \ untouched`: `/"quoted" \ untouched`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
