// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// attempts is the variable with the folder for the attempts of a child process of this
// test.
const attempts = "OPENSHELL_TEST_ATTEMPTS"

func TestMain(m *testing.M) {
	dir := os.Getenv(attempts)
	if dir == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("LOCKED") != "" {
		err := keepToItself()
		if err == nil {
			err = lockDown(filepath.Join(dir, "store"))
		}
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	try := func(what string, f func() error) { fmt.Printf("%s: %v\n", what, f() == nil) }
	try("write in the store", func() error { return os.WriteFile(filepath.Join(dir, "store", "a"), nil, 0o600) })
	try("read elsewhere", func() error { _, err := os.ReadFile(filepath.Join(dir, "other", "there")); return err })
	try("write elsewhere", func() error { return os.WriteFile(filepath.Join(dir, "other", "a"), nil, 0o600) })
	try("change elsewhere", func() error { return os.Truncate(filepath.Join(dir, "other", "there"), 0) })
	try("run a program", func() error {
		cmd := exec.Command("/proc/self/exe", "-test.list", "none")
		cmd.Env = []string{"HOME=/"} // without the variable, so that the child's child does not repeat the attempts
		return cmd.Run()
	})
	try("be dumped", func() error {
		n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err == nil && n == 0 {
			err = os.ErrPermission
		}
		return err
	})
	os.Exit(0)
}

// TestHardened checks that the refresher can write in its store and read, and can do
// nothing else. The control, the same program without hardening, can do all of it.
func TestHardened(t *testing.T) {
	if abi, err := llsys.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("Landlock's ABI is %d: %v", abi, err)
	}
	for _, locked := range []string{"", "yes"} {
		dir := t.TempDir()
		for _, d := range []string{"store", "other"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "other", "there"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = []string{attempts + "=" + dir, "LOCKED=" + locked}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := "write in the store: true\nread elsewhere: true\nwrite elsewhere: true\nchange elsewhere: true\nrun a program: true\nbe dumped: true\n"
		if locked != "" {
			want = strings.Replace(want, "write elsewhere: true\nchange elsewhere: true\nrun a program: true\nbe dumped: true", "write elsewhere: false\nchange elsewhere: false\nrun a program: false\nbe dumped: false", 1)
		}
		if string(out) != want {
			t.Errorf("hardened %q:\n%s", locked, out)
		}
	}
}
