// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// image writes the world's root filesystem as an OCI layout whose configuration
// is config, and returns its folder.
func (w *world) image(config v1.Config) string {
	w.t.Helper()
	layer, err := exec.Command("tar", "-C", w.rootfs, "-c", ".").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		w.t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err == nil {
		img, err = mutate.Config(img, config)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "image")
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// runImage is run with an image in the place of the root filesystem.
func (w *world) runImage(image string, args ...string) (string, int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	args = append([]string{"run", "--root", filepath.Join(w.dir, "state"), "--image", image, "--policy", w.policy, "--config", w.config}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(built.bin, "openshell"), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// -t gives the command a terminal though the caller has none.
func TestRunTerminalWithoutOne(t *testing.T) {
	w := newWorld(t, testPolicy)
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(
		ctx, filepath.Join(built.bin, "openshell"), "run", "--root", w.state(), "--rootfs", w.rootfs,
		"--policy", w.policy, "--config", w.config, "-t", "--", "/bin/probe", "isatty",
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a controlling terminal
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ok: terminal") {
		t.Errorf("%v, printed %q", err, out)
	}
}

// The caller's umask does not change the modes of a sandbox's folders.
func TestRunUmask(t *testing.T) {
	w := newWorld(t, testPolicy)
	volume := t.TempDir()
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string][]string{"root filesystem": {"--rootfs", w.rootfs}, "image": {"--image", w.image(v1.Config{})}} {
		t.Run(name, func(t *testing.T) {
			args := append(source, "--root", w.state(), "--policy", w.policy, "--config", w.config, "-u", "1000:1000", "-v", volume+":/tmp/made/here", "-w", "/tmp/made/here", "--", "/bin/probe", "read", "/etc/passwd")
			args = append([]string{"-c", `umask 077; exec "$0" run "$@"`, filepath.Join(built.bin, "openshell")}, args...)
			if out, err := exec.Command("/bin/sh", args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "ok: ") {
				t.Errorf("%v, printed %q", err, out)
			}
		})
	}
}

// An image's own words about how it is run hold unless a flag says otherwise.
func TestRunImage(t *testing.T) {
	w := newWorld(t, testPolicy)
	if err := os.WriteFile(filepath.Join(w.rootfs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\napp:x:1234:4321::/srv/app:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := w.image(v1.Config{
		Entrypoint: []string{"/bin/probe"}, Cmd: []string{"self"}, User: "app", WorkingDir: "/tmp/made/here", Env: []string{"A=image", "B=image"},
	})
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"as it is", nil, []string{"uid=1234 gid=4321 cwd=/tmp/made/here", "A=image", "B=image", "HOME=/srv/app"}},
		{"other environment and user", []string{"-e", "A=flag,with,commas", "-u", "0:0", "-w", "/tmp"}, []string{"uid=0 gid=0 cwd=/tmp", "A=flag,with,commas", "B=image", "HOME=/root"}},
		{"other command for its entry point", []string{"--", "read", "/etc/passwd"}, []string{"ok: "}},
		{"outside the policy", []string{"--", "read", "/secret/key"}, []string{"error: EACCES"}},
		{"added host", []string{"-u", "0", "--add-host", "api.test:10.9.8.7", "--", "cat", "/etc/hosts"}, []string{`10.9.8.7\tapi.test\n`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, code := w.runImage(image, tc.args...)
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("status %d, printed %q, want …%s…", code, out, want)
				}
			}
		})
	}
	w.nothingRemains()
}

// -it gives the command a terminal: what is typed reaches it, and what it prints
// comes back.
func TestRunTerminal(t *testing.T) {
	w := newWorld(t, testPolicy)
	pty, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(
		ctx, filepath.Join(built.bin, "openshell"), "run", "--root", filepath.Join(w.dir, "state"), "--rootfs", w.rootfs,
		"--policy", w.policy, "--config", w.config, "-it", "--", "/bin/probe", "terminal",
	)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(pty, "typed\r"); err != nil {
		t.Fatal(err)
	}
	// The last holder's close ends the reading with EIO.
	out, _ := io.ReadAll(pty)
	if err := cmd.Wait(); err != nil || !strings.Contains(string(out), `ok: terminal, read "typed"`) {
		t.Errorf("%v, printed %q", err, out)
	}
	w.nothingRemains()
}

// A command with a terminal learns that its input has ended, also in the middle of a
// line.
func TestRunTerminalEndOfInput(t *testing.T) {
	w := newWorld(t, testPolicy)
	for input, want := range map[string]string{"": `read ""`, "half": `read "half"`} {
		ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
		cmd := exec.CommandContext(
			ctx, filepath.Join(built.bin, "openshell"), "run", "--root", w.state(), "--rootfs", w.rootfs,
			"--policy", w.policy, "--config", w.config, "-it", "--", "/bin/probe", "stdin",
		)
		cmd.Stdin = strings.NewReader(input)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("input %q: %v, printed %q", input, err, out)
		}
		cancel()
	}
}

// What goes wrong, and what may not be meant, is said in words for people.
func TestRunSaysWhy(t *testing.T) {
	w := newWorld(t, testPolicy)
	host := t.TempDir()
	bad := w.file("bad.yaml", "version: 1\nfilesystem_polic: {}\nlandlok: {}\n")
	network := w.file("network.yaml", "version: 1\nnetwork_policies:\n  api:\n    endpoints: [{host: api.test, port: 443, protocol: rest, access: read-only}]\n    binaries: [/bin/probe]\n")
	for name, tc := range map[string]struct {
		flags, argv []string
		want        string
		status      int
	}{
		"invalid policy": {
			[]string{"--policy", bad},
			[]string{"/bin/probe", "self"},
			"openshell-runtime run failed: policy " + bad + ": " + bad + ":2:1: unknown field \"filesystem_polic\" in policy (did you mean \"filesystem_policy\"?)\n" + bad + ":3:1: ", 1,
		},
		"missing policy": {[]string{"--policy", "missing"}, []string{"/bin/probe", "self"}, "openshell-runtime run failed: --policy: there is no policy ", 1},
		"policy that is a FIFO": {
			[]string{"--policy", fifo(t)}, []string{"/bin/probe", "self"}, "openshell-runtime run failed: --policy: policy /", 1,
		},
		"uncovered mount": {
			[]string{"-v", host + ":/data"},
			[]string{"/bin/probe", "write", "/data/x"},
			"warning: policy " + w.policy + ": no path of the policy covers /data (mounts[8]), so nothing of it can be opened\nerror: EACCES", 1,
		},
		"network rules alone": {
			[]string{"--policy", network},
			[]string{"/bin/probe", "read", "/etc/passwd"},
			"warning: policy " + network + ": endpoints do not set enforcement, which means audit: requests that their rules refuse are recorded and pass (line 4)\nok: ", 0,
		},
		"command that is not found":       {nil, []string{"missing"}, "openshell-runtime run failed: unable to start container process: error during container init: exec: \"missing\": executable file not found in $PATH", 127},
		"path that is not found":          {nil, []string{"/bin/missing"}, "openshell-runtime run failed: unable to start container process: error during container init: exec: \"/bin/missing\": stat", 127},
		"command that cannot be executed": {nil, []string{"/etc/passwd"}, "openshell-runtime run failed: unable to start container process: error during container init: exec: \"/etc/passwd\": permission denied", 126},
		"nothing to run": {
			[]string{"--policy", w.file("files.yaml", "version: 1\nfilesystem_policy: {read_only: [/etc]}\n")},
			[]string{"/bin/probe", "self"},
			"exec /bin/probe: permission denied (it and its interpreter must be executable and below a path of the policy's filesystem_policy)", 126,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if out, status := w.runWith(tc.flags, tc.argv...); status != tc.status || !strings.HasPrefix(out, tc.want) {
				t.Errorf("status %d, printed %q; want %d, %q…", status, out, tc.status, tc.want)
			}
		})
	}
	w.nothingRemains()
}

// TestFilesystemBaseline: what a policy does not list, and programs need to start, is there
// where the policy has network rules or says nothing of files, and an operator's
// filesystem_baseline: explicit takes the file at its word.
func TestFilesystemBaseline(t *testing.T) {
	w := newWorld(t, testPolicy)
	explicit := w.file("explicit.yaml", "log_dir: "+w.records()+"\nfilesystem_baseline: explicit\n")
	const network = "network_policies: {a: {endpoints: [{host: a.test, port: 443}], binaries: [/bin/probe]}}\n"
	const work = "filesystem_policy: {read_write: [/root]}\n"
	for _, tc := range []struct {
		name, policy, config string
		argv                 []string
		want                 string
	}{
		{"version alone", "", "", []string{"read", "/etc/passwd"}, "ok: "},
		{"version alone writes /tmp", "", "", []string{"write", "/tmp/x"}, "ok: "},
		{"version alone writes /dev/null", "", "", []string{"write", "/dev/null"}, "ok: "},
		{"version alone does not write /etc", "", "", []string{"write", "/etc/x"}, "error: EACCES"},
		{"network_policies of nothing", "network_policies:\n", "", []string{"read", "/etc/passwd"}, "ok: "},
		{"files and a network", work + network, "", []string{"read", "/etc/passwd"}, "ok: "},
		{"files and a network write what is listed", work + network, "", []string{"write", "/root/x"}, "ok: "},
		{"no more than the baseline", work + network, "", []string{"read", "/secret/key"}, "error: EACCES"},
		{"a listed path keeps its access", "filesystem_policy: {read_only: [/tmp]}\n" + network, "", []string{"write", "/tmp/x"}, "error: EACCES"},
		{"explicit", "filesystem_policy: {read_only: [/bin]}\n" + network, explicit, []string{"read", "/etc/passwd"}, "error: EACCES"},
		{"explicit, nothing said of files", network, explicit, []string{"read", "/etc/passwd"}, "ok: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flags := []string{"--policy", w.file("baseline.yaml", "version: 1\n"+tc.policy)}
			if tc.config != "" {
				flags = append(flags, "--config", tc.config)
			}
			out, _ := w.runWith(flags, append([]string{"/bin/probe"}, tc.argv...)...)
			lines := slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return strings.HasPrefix(l, "warning: ") })
			if !strings.HasPrefix(strings.Join(lines, "\n"), tc.want) {
				t.Errorf("printed %q, want %q…", out, tc.want)
			}
		})
	}
	w.nothingRemains()
}

// TestHardRequirement: under hard_requirement a path that the container lacks is skipped and
// said, unless the operator's landlock.missing_paths is fail.
func TestHardRequirement(t *testing.T) {
	w := newWorld(t, testPolicy)
	strict := w.file("strict.yaml", "log_dir: "+w.records()+"\nlandlock: {missing_paths: fail}\n")
	const hard = "version: 1\nlandlock: {compatibility: hard_requirement}\n"
	some := w.file("some.yaml", hard+"filesystem_policy: {read_only: [/bin, /missing]}\n")
	none := w.file("none.yaml", hard+"filesystem_policy: {read_only: [/missing]}\n")
	for _, tc := range []struct {
		name   string
		flags  []string
		want   string
		status int
	}{
		{"skipped", []string{"--policy", some}, "warning: policy " + some + ": paths that the container does not have are skipped: /missing\n", 0},
		{"none is there", []string{"--policy", none}, "none of the policy's paths can be opened", 126},
		{"missing_paths: fail", []string{"--policy", some, "--config", strict}, "landlock.missing_paths is fail: /missing: ", 126},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, status := w.runWith(tc.flags, "/bin/probe", "self"); status != tc.status || !strings.Contains(out, tc.want) {
				t.Errorf("status %d, printed %q; want %d, %q", status, out, tc.status, tc.want)
			}
		})
	}
	w.nothingRemains()
}

func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Who sends three signals to stop gets an end, even of a command that hears none.
func TestRunInsisted(t *testing.T) {
	w := newWorld(t, testPolicy)
	cmd, _ := w.stubborn("box")
	for i := range 3 {
		if i > 0 {
			time.Sleep(200 * time.Millisecond) //nolint:forbidigo // two signals of one kind count once if the first has not been taken
			if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
				t.Fatalf("after %d signals: %v", i, err)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(runTimeout):
		t.Fatal("still running")
	}
	if got := cmd.ProcessState.ExitCode(); got != 128+int(syscall.SIGKILL) {
		t.Errorf("status %d", got)
	}
	w.nothingRemains()
}
