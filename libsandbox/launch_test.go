// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/launch"
	"openshell.dev/runtime/libsandbox/plan"
)

// TestInstructions: launch is told the plan's rules, and a filter that depends on tracing.
func TestInstructions(t *testing.T) {
	pl := &plan.Plan{Ruleset: landlock.New(3, []landlock.Rule{{Path: "/usr", Access: landlock.ReadOnly}}, 0)}
	filters := map[bool][]byte{}
	for _, tracing := range []bool{false, true} {
		pl.Tracing = tracing
		text, err := instructions(pl, 2)
		if err != nil {
			t.Fatal(err)
		}
		got, err := launch.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(pl.Ruleset, got.Landlock); d != "" || got.Keep != 2 {
			t.Errorf("%s keep %d, filter of %d bytes", d, got.Keep, len(got.Filter))
		}
		filters[tracing] = got.Filter
	}
	if slices.Equal(filters[false], filters[true]) {
		t.Error("the filter is the same with tracing and without")
	}
}

func TestLaunchArgs(t *testing.T) {
	args := []string{"agent", "--flag"}
	got := launchArgs(5, args)
	if want := []string{"/proc/self/fd/5", "6", "agent", "--flag"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := launchArgs(3, nil); !slices.Equal(got, []string{"/proc/self/fd/3", "4"}) {
		t.Errorf("%q", got)
	}
}

// TestSealedFile: a process that gets the file can read it and can change nothing of it.
func TestSealedFile(t *testing.T) {
	f, err := sealed("test", []byte("instructions"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "instructions" {
		t.Errorf("read %q, %v", text, err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("add a seal: %v", err)
	}
}

// TestWrapWithLaunchFails: without launch beside the program the process stays as it was,
// and no file stays open.
func TestWrapWithLaunchFails(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "args must not be empty"},
		{[]string{"agent"}, "open openshell-launch, which belongs beside the runtime: "},
	} {
		before := openFiles(t)
		o, process := &container.ProcessConfig{Files: []*os.File{os.Stdin}}, &specs.Process{Args: tc.args}
		_, err := wrapWithLaunch(o, process, &plan.Plan{})
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
		if len(o.Files) != 1 || !slices.Equal(process.Args, tc.args) {
			t.Errorf("files %v, arguments %q", o.Files, process.Args)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d open files before, %d after", before, after)
		}
	}
}
