// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// asRuntime makes this test's program the runtime itself.
const asRuntime = "OPENSHELL_TEST_RUNTIME"

func TestMain(m *testing.M) {
	if os.Getenv(asRuntime) != "" {
		main()
	}
	os.Exit(m.Run())
}

// result is what the runtime printed and its exit status.
type result struct {
	stdout, stderr string
	status         int
}

func invoke(t *testing.T, dir string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asRuntime+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func TestHelp(t *testing.T) {
	for verb, want := range map[string]string{
		"checkpoint": "--page-server", "create": "--pidfd-socket", "delete": "--force, -f", "events": "--interval", "exec": "--ignore-paused",
		"features": "JSON", "kill": "[signal]", "list": "--quiet, -q", "pause": "<container-id>", "ps": "[ps options]", "restore": "--lsm-profile",
		"resume": "<container-id>", "run": "--keep", "spec": "--rootless", "start": "<container-id>", "state": "<container-id>", "update": "--memory-swap",
	} {
		for _, flag := range []string{"-h", "--help"} {
			r := invoke(t, "", verb, flag)
			if r.status != 0 || !strings.HasPrefix(r.stdout, "NAME:\n   openshell-runtime "+verb+" - ") || !strings.Contains(r.stdout, want) {
				t.Errorf("%s %s: status %d, want help with %s: %s%s", verb, flag, r.status, want, r.stdout, r.stderr)
			}
		}
	}
}

// Texts and statuses that engines and people's scripts know from runc.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "state")
	if err := os.MkdirAll(filepath.Join(root, "@sandbox", "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"too few", []string{"kill"}, 1, `^Incorrect Usage\.\n\nNAME`, `requires a minimum of 1 argument`},
		{"not exactly", []string{"start", "a", "b"}, 1, `^Incorrect Usage\.`, `requires exactly 1 argument`},
		{"too many", []string{"kill", "a", "KILL", "b"}, 1, `^Incorrect Usage\.`, `requires a maximum of 2 argument`},
		{"none wanted", []string{"features", "a"}, 1, `^Incorrect Usage\.`, `requires exactly 0 argument`},
		{"empty ID", []string{"state", ""}, 1, `^$`, `container id cannot be empty`},
		{"unknown verb's help", []string{"foo", "-h"}, 3, ``, `No help topic for 'foo'`},
		{"missing container", []string{"state", "missing"}, 1, `^$`, `^time="[-0-9T:Z+]+" level=error msg="container does not exist"\n$`},
		{"failed exec", []string{"exec", "missing", "prog"}, 255, `^$`, `msg="exec failed: container does not exist"`},
		{"a program's flag is not the log's", []string{"exec", "missing", "prog", "--log=" + dir + "/stolen"}, 255, `^$`, `level=error`},
		{"JSON before flags are read", []string{"--log-format", "json", "--nonsense", "list"}, 1, `^Incorrect Usage`, `^\{"level":"error","msg":"flag provided but not defined: -nonsense","time":"[-0-9T:Z+]+"\}\n$`},
		{"log format", []string{"--log-format", "yaml", "list"}, 1, `^$|^NAME`, `invalid log-format: yaml`},
		{"root of everything", []string{"--root", "/", "list"}, 1, `^$|^NAME`, `--root argument should not be set to /`},
		{"named root that is not there", []string{"--root", dir + "/none", "list"}, 1, `^$`, `no such file or directory`},
		{"the sandboxes' folder is no container", []string{"delete", "--force", "@sandbox"}, 1, `^$`, `invalid container ID format`},
		{"signal", []string{"kill", "missing", "NONSENSE"}, 1, `^$`, `unknown signal .*NONSENSE`},
		{"interval", []string{"events", "missing", "--interval", "x"}, 1, `^Incorrect Usage`, `invalid value .*x.* for flag`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := invoke(t, dir, append([]string{"--root", root}, tc.args...)...)
			if r.status != tc.status {
				t.Errorf("status %d, want %d", r.status, tc.status)
			}
			if !regexp.MustCompile(tc.stdout).MatchString(r.stdout) {
				t.Errorf("stdout %q, want %s", r.stdout, tc.stdout)
			}
			if !regexp.MustCompile(tc.stderr).MatchString(r.stderr) {
				t.Errorf("stderr %q, want %s", r.stderr, tc.stderr)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "stolen")); err == nil {
		t.Error("an exec's program named the log")
	}
	if _, err := os.Stat(filepath.Join(root, "@sandbox", "other")); err != nil {
		t.Errorf("delete removed another sandbox's state: %v", err)
	}
}

// The log's last line is what containerd shows; standard error has plain words.
func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	r := invoke(t, dir, "--log", "log.json", "--log-format=json", "--root", dir+"/state", "state", "missing")
	if r.status != 1 || r.stderr != "container does not exist\n" {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "log.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\{"level":"error","msg":"container does not exist","time":"[-0-9T:Z+]+"\}\n$`).Match(text) {
		t.Errorf("log: %s", text)
	}
}

func TestSpec(t *testing.T) {
	dir := t.TempDir()
	for _, flags := range [][]string{{"spec"}, {"spec", "--rootless"}} {
		if err := os.RemoveAll(filepath.Join(dir, specFile)); err != nil {
			t.Fatal(err)
		}
		if r := invoke(t, "", append(flags, "--bundle", dir)...); r.status != 0 {
			t.Fatalf("%v: %s", flags, r.stderr)
		}
		t.Chdir(dir)
		s, err := readSpec()
		if err != nil {
			t.Fatal(err)
		}
		if rootless := len(s.Linux.UIDMappings) > 0; rootless != (len(flags) == 2) {
			t.Errorf("%v: rootless is %v", flags, rootless)
		}
	}
	if r := invoke(t, dir, "spec"); r.status != 1 || !strings.Contains(r.stderr, "File config.json exists. Remove it first") {
		t.Errorf("spec over another: status %d, %s", r.status, r.stderr)
	}
}

func TestFeatures(t *testing.T) {
	r := invoke(t, "", "features")
	for _, want := range []string{`"ociVersionMin": "1.0.0"`, `"createRuntime"`, `"bundle",`, `"openshell.dev/"`} {
		if r.status != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("status %d, no %s in %s", r.status, want, r.stdout)
		}
	}
}

func TestUnknownVerb(t *testing.T) {
	if r := invoke(t, "", "nosuch"); r.status != 3 || !strings.Contains(r.stderr, "No help topic for 'nosuch'") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}
