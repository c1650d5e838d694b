// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/console"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append([]string{"run", "--root", filepath.Join(w.dir, "state"), "--image", image, "--policy", w.policy, "--config", w.config}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(built.bin, "openshell"), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
