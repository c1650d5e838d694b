// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/state"
)

// In these tests, this process takes the place of the container's process. It has the root of
// the machine and the namespaces of the runtime.

func TestRefuseHostNamespaces(t *testing.T) {
	all := []string{"linux.namespaces.pid", "linux.namespaces.ipc", "linux.namespaces.mount"}
	for _, field := range all {
		others := slices.DeleteFunc(slices.Clone(all), func(f string) bool { return f == field })
		var r *plan.Refusal
		if err := refuseHostNamespaces(os.Getpid(), others); !errors.As(err, &r) || r.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := refuseHostNamespaces(os.Getpid(), all); err != nil {
		t.Errorf("with all of them allowed: %v", err)
	}
	if err := refuseHostNamespaces(1<<22+1, nil); err == nil { // above the kernel's PID_MAX_LIMIT
		t.Error("the namespaces of no process were accepted")
	}
}

// newInside returns the callbacks of a create whose mounts and paths are accepted.
func newInside(t *testing.T) (in *insideRun, released *int) {
	t.Helper()
	b := newBundle(t, "version: 1\n", "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	released = new(int)
	return &insideRun{
		resolved: b.resolved, spec: b.spec, program: &specs.Process{Args: []string{self}}, sources: &mountSources{},
		network: &network{captured: make(chan struct{})}, state: &state.State{Plan: &plan.Plan{}}, dir: b.root, release: func() { *released++ },
	}, released
}

// TestStartedFails: an error of each check ends the create before the proxy serves, and
// nothing is written or given back.
func TestStartedFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, in *insideRun)
		want   string
	}{
		{"no program", func(_ *testing.T, in *insideRun) { in.program.Args = []string{"/no/such"} }, `exec: "/no/such": stat /no/such: no such file or directory`},
		{"a source that appeared", func(_ *testing.T, in *insideRun) {
			in.sources.list = []*source{{index: rootIndex, name: "rootfs"}}
		}, "rootfs appeared while the container was made"},
		{"a path that leads to the root", func(t *testing.T, in *insideRun) {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink("/", link); err != nil {
				t.Fatal(err)
			}
			in.state.Plan.Ruleset.Rules = []landlock.Rule{{Path: link, Access: landlock.ReadWrite}}
		}, "is a link to the container's root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in, released := newInside(t)
			tc.change(t, in)
			if err := in.started(os.Getpid()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if made, err := os.ReadDir(in.dir); err != nil || len(made) > 0 || *released > 0 {
				t.Errorf("made %v, released %d times, %v", made, *released, err)
			}
		})
	}
}

// TestCreateRuntimeWaits: the container's process is held until its network namespace is
// captured, and is let go with the error if that fails.
func TestCreateRuntimeWaits(t *testing.T) {
	in, _ := newInside(t)
	in.resolved.config.Allow = []string{"linux.namespaces.pid", "linux.namespaces.ipc", "linux.namespaces.mount"}
	var err error
	if in.network.namespace, err = os.Open("/proc/self/ns/net"); err != nil {
		t.Fatal(err)
	}
	defer in.network.namespace.Close()
	result := make(chan error)
	go func() { result <- in.createRuntime(&specs.State{Pid: os.Getpid()}) }()
	select {
	case err := <-result:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	in.network.err = errors.New("not captured")
	close(in.network.captured)
	if err := <-result; err == nil || err.Error() != "not captured" {
		t.Errorf("error %v", err)
	}
	in.network.err = nil
	if err := in.createRuntime(&specs.State{Pid: os.Getpid()}); err != nil {
		t.Errorf("captured: %v", err)
	}
}

// TestPinPaths: rules are tied to the files of the container's root; rules without a file
// go.
func TestPinPaths(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, dir, "file", "")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(dir, "gone")
	r := &landlock.Ruleset{Rules: []landlock.Rule{
		{Path: file, Access: landlock.ReadWrite},
		{Path: link, Access: landlock.ReadOnly},
		{Path: link, Access: landlock.ReadOnly, Origin: landlock.OriginBaseline}, // a link in the baseline gives nothing
		{Path: gone, Access: landlock.ReadOnly},
		{Path: gone, Access: landlock.ReadOnly, Origin: landlock.OriginBaseline},
		{Path: "/", Access: landlock.ReadWrite},
		{Path: "/proc", Access: landlock.ReadWrite},
	}}
	missing, err := pinPaths(os.Getpid(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(missing, []string{gone}) {
		t.Errorf("missing %q", missing)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	if len(r.Rules) != 4 || r.Rules[0].Ino != st.Ino || r.Rules[1].Ino != st.Ino || r.Rules[1].Dev != st.Dev || r.Rules[2].Path != "/" {
		t.Errorf("rules %+v", r.Rules)
	}
}

// TestBypass_B55_PinPathsRefusesLinks: an image cannot make a writable path of the policy
// the whole root, or the /proc of the container.
func TestBypass_B55_PinPathsRefusesLinks(t *testing.T) {
	for target, want := range map[string]string{"/": "is a link to the container's root", "/proc/self": "is a link into the container's /proc", "/usr": ""} {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		_, err := pinPaths(os.Getpid(), &landlock.Ruleset{Rules: []landlock.Rule{{Path: link, Access: landlock.ReadWrite}}})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("a writable link to %s: %v", target, err)
		}
		if _, err := pinPaths(os.Getpid(), &landlock.Ruleset{Rules: []landlock.Rule{{Path: link, Access: landlock.ReadOnly}}}); err != nil {
			t.Errorf("a readable link to %s: %v", target, err)
		}
	}
}

// TestLookUp: the texts are runc's, which engines match.
func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	plain := writeFile(t, dir, "plain", "")
	program := writeFile(t, dir, "program", "")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	const start = "unable to start container process: error during container init: exec: "
	for _, tc := range []struct {
		name    string
		process specs.Process
		status  int
		want    string
	}{
		{"absolute", specs.Process{Args: []string{program}}, 0, ""},
		{"relative", specs.Process{Args: []string{"./program"}, Cwd: dir}, 0, ""},
		{"in PATH", specs.Process{Args: []string{"program"}, Env: []string{"PATH=/nowhere:" + dir}}, 0, ""},
		{"the last PATH counts", specs.Process{Args: []string{"program"}, Env: []string{"PATH=/nowhere", "PATH=" + dir}}, 0, ""},
		{"a folder", specs.Process{Args: []string{dir}}, 126, `"` + dir + `": permission denied`},
		{"not executable", specs.Process{Args: []string{plain}}, 126, `"` + plain + `": permission denied`},
		{"not executable in PATH", specs.Process{Args: []string{"plain"}, Env: []string{"PATH=" + dir + ":/nowhere"}}, 126, `"plain": permission denied`},
		{"missing", specs.Process{Args: []string{"/no/such"}}, 127, `"/no/such": stat /no/such: no such file or directory`},
		{"missing in PATH", specs.Process{Args: []string{"such"}, Env: []string{"PATH=/nowhere"}}, 127, `"such": executable file not found in $PATH`},
		{"no PATH", specs.Process{Args: []string{"program"}, Cwd: "/nowhere"}, 127, `"program": executable file not found in $PATH`},
	} {
		err := lookUp(os.Getpid(), &tc.process)
		var e *ProgramError
		switch {
		case tc.status == 0:
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		case !errors.As(err, &e) || e.Status != tc.status || err.Error() != start+tc.want:
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}
