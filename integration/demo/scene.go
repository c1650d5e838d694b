// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/decisionlog"
)

// stopTimeout limits how long the sandbox may take to end.
const stopTimeout = 5 * time.Second

// scene is one sandbox and the host that it talks to.
type scene struct {
	ctx      context.Context
	bin, dir string
	name     string
	text     string
	up       *upstream.Host

	// sandbox is the process of `openshell run`. in and out are connected to the agent in
	// it.
	sandbox   *exec.Cmd
	in        io.WriteCloser
	out       *json.Decoder
	complaint bytes.Buffer
	// first is the pid of the sandbox's first process. seen is the last record that was
	// processed.
	first int
	seen  uint64
}

// open prepares what a sandbox needs: a root filesystem, a policy and the upstream.
func open(ctx context.Context, bin, text string) (_ *scene, err error) {
	s := &scene{ctx: ctx, bin: bin, text: text, name: fmt.Sprintf("demo-%d", os.Getpid())}
	if s.dir, err = os.MkdirTemp("", "openshell-demo-"); err != nil {
		return nil, fmt.Errorf("create a folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.up, err = upstream.Open("api.demo.test", "docs.demo.test", "evil.demo.test"); err != nil {
		return nil, err
	}
	s.up.Name("docs.demo.test", func(int) []netip.Addr { return []netip.Addr{s.up.Addr} })
	if err := s.up.WriteCA(filepath.Join(s.dir, "ca.pem")); err != nil {
		return nil, fmt.Errorf("write the upstream's CA: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "config.yaml"), []byte("log_dir: "+s.logs()+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write the operator's configuration: %w", err)
	}
	if err := s.rootfs(); err != nil {
		return nil, fmt.Errorf("make a root filesystem: %w", err)
	}
	return s, s.resolver()
}

// rootfs creates a minimal root filesystem: the agent, and the probe under two names.
func (s *scene) rootfs() error {
	root := filepath.Join(s.dir, "rootfs")
	for _, d := range []string{"bin", "etc/ssl/certs", "tmp", "proc", "dev", "sys", "secret"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for name, from := range map[string]string{"agent": "agent", "probe": "probe", "stranger": "probe"} {
		program, err := os.ReadFile(filepath.Join(s.bin, from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "bin", name), program, 0o755); err != nil {
			return err
		}
	}
	// The program itself verifies TLS that the proxy does not terminate.
	return errors.Join(
		s.up.WriteCA(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")),
		os.WriteFile(filepath.Join(root, "etc/motd"), []byte("sandbox\n"), 0o644),
		os.WriteFile(filepath.Join(root, "secret/key"), []byte("the key\n"), 0o644),
	)
}

// resolver makes the upstream the only name server for programs that are started from this
// thread, so that it sees every query that leaves.
func (s *scene) resolver() error {
	file := filepath.Join(s.dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+s.up.Addr.String()+"\n"), 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("create mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over /etc/resolv.conf: %w", err)
	}
	return nil
}

func (s *scene) states() string { return filepath.Join(s.dir, "state") }
func (s *scene) logs() string   { return filepath.Join(s.dir, "logs") }

// start runs the sandbox. It returns when its first process, the agent, answers.
func (s *scene) start() (err error) {
	cmd := exec.Command(
		filepath.Join(s.bin, "openshell"), "run", "-i", "--root", s.states(), "--name", s.name,
		"--rootfs", filepath.Join(s.dir, "rootfs"), "--policy", filepath.Join(s.dir, "policy.yaml"), "--config", filepath.Join(s.dir, "config.yaml"),
		"--add-host", "api.demo.test:"+s.up.Addr.String(), "--add-host", "evil.demo.test:"+s.up.Addr.String(),
		"--upstream-ca", filepath.Join(s.dir, "ca.pem"), "--", "/bin/agent",
	)
	cmd.Stderr = &s.complaint
	// Only the demo receives signals from the terminal, and then ends the sandbox.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if s.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.out = json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start openshell run: %w", err)
	}
	s.sandbox = cmd
	// Nothing may wait for an answer longer than the demo runs.
	context.AfterFunc(s.ctx, func() { _ = s.in.Close() })
	if _, err := s.ask([]string{"/bin/probe", "status"}); err != nil {
		return err
	}
	s.first, err = s.firstProcess()
	return err
}

// firstProcess returns the pid of the sandbox's first process, if it is running.
func (s *scene) firstProcess() (int, error) {
	text, err := s.run("openshell-runtime", "--root", s.states(), "state", s.name)
	if err != nil {
		return 0, err
	}
	var st struct {
		Status string
		Pid    int
	}
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return 0, fmt.Errorf("openshell-runtime state printed %s", text)
	}
	if st.Status != "running" {
		return 0, fmt.Errorf("the sandbox is %s", st.Status)
	}
	return st.Pid, nil
}

// run runs one of the built programs and returns its output. It ignores the status: the
// demo also shows refusals.
func (s *scene) run(program string, args ...string) (string, error) {
	out, err := exec.CommandContext(s.ctx, filepath.Join(s.bin, program), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// ask makes the agent run a program, and returns the program's output.
func (s *scene) ask(args []string) (said string, err error) {
	if err := json.NewEncoder(s.in).Encode(args); err != nil {
		return "", fmt.Errorf("ask the agent: %w", err)
	}
	if err := s.out.Decode(&said); err != nil {
		return "", fmt.Errorf("hear the agent: %w; it said: %s", err, s.complaint.String())
	}
	return said, nil
}

// records returns the proxy's decisions so far.
func (s *scene) records() ([]decisionlog.Record, error) {
	text, err := s.run("openshell", "logs", s.name, "-o", "json", "--log-dir", s.logs())
	if err != nil {
		return nil, err
	}
	var out []decisionlog.Record
	for r, bad := range decisionlog.Read(strings.NewReader(text)) {
		if bad == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// close ends everything and removes all files.
func (s *scene) close() error {
	var errs []error
	if s.sandbox != nil {
		// The agent ends when its input ends, and the sandbox ends with the agent.
		_ = s.in.Close()
		late := time.AfterFunc(stopTimeout, func() { _ = s.sandbox.Process.Kill() })
		if err := s.sandbox.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("openshell run: %w: %s", err, s.complaint.String()))
			errs = append(errs, exec.Command(filepath.Join(s.bin, "openshell-runtime"), "--root", s.states(), "delete", "--force", s.name).Run())
		}
		late.Stop()
	}
	if s.up != nil {
		errs = append(errs, s.up.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
