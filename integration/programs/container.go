// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/netns"
)

// hostname is the hostname of every container.
const hostname = "box"

// slots is the number of containers that can be connected to the test network one after
// another before a number is reused. Number 0 is the peer's.
const slots = 200

// waitDelay is how long a killed runtime may keep its output open.
const waitDelay = 5 * time.Second

// container is one bundle and the runtime that runs it.
type container struct {
	w       *world
	c       *command
	id, dir string
	// sandbox is true for openshell-runtime and false for runc.
	sandbox bool
	addr    netip.Addr
	// before holds the layer's files before the container ran; see layer.
	before map[string]string
	ended  []func() error
}

// newContainer lays out a bundle for c. The caller calls close.
func (w *world) newContainer(ctx context.Context, c *command, sandbox bool) (_ *container, err error) {
	n := w.started.Add(1)
	b := &container{w: w, c: c, sandbox: sandbox, id: fmt.Sprintf("programs-%d-%d", os.Getpid(), n)}
	b.dir = filepath.Join(w.dir, b.id)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := b.overlay(); err != nil {
		return nil, err
	}
	namespace, err := b.network(int(n))
	if err != nil {
		return nil, err
	}
	if c.Network == networkRegistries {
		if err := b.trustMachine(); err != nil {
			return nil, err
		}
	}
	if c.Prepare != "" {
		if _, err := ask(ctx, "chroot", b.rootfs(), "sh", "-ec", c.Prepare); err != nil {
			return nil, err
		}
	}
	if c.Layer {
		if b.before, err = b.layer(); err != nil {
			return nil, err
		}
	}
	policy := policyText
	switch {
	case c.Policy != "":
		policy = c.Policy
	case c.Network == networkRegistries:
		policy = w.registries.policy()
	}
	text, err := json.Marshal(b.spec(namespace))
	if err != nil {
		return nil, err
	}
	return b, errors.Join(
		os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o644),
		os.WriteFile(filepath.Join(b.dir, "policy.yaml"), []byte(policy), 0o644),
	)
}

func (b *container) rootfs() string { return filepath.Join(b.dir, "rootfs") }

// overlay mounts the root filesystem with a layer for this container only.
func (b *container) overlay() error {
	lower := b.w.rootfs
	if b.c.Small {
		lower = b.w.small
	}
	for _, d := range []string{"rootfs", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(b.dir, d), 0o755); err != nil {
			return err
		}
	}
	b.ended = append(b.ended, func() error { return os.RemoveAll(b.dir) })
	// volatile: the layer is thrown away, so nothing has to be synced to the disk.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", lower, filepath.Join(b.dir, "upper"), filepath.Join(b.dir, "work"))
	if err := unix.Mount("overlay", b.rootfs(), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount the root filesystem: %w", err)
	}
	b.ended = append(b.ended, func() error { return unix.Unmount(b.rootfs(), unix.MNT_DETACH) })
	return nil
}

// bundle is the file with the CAs that programs in Debian trust.
const bundle = "/etc/ssl/certs/ca-certificates.crt"

// trustMachine adds the CAs that this machine trusts to the image's bundle: one of
// them may have signed the certificates of the registries.
func (b *container) trustMachine() error {
	ours, err := os.ReadFile(bundle)
	if err != nil {
		return err
	}
	file := filepath.Join(b.rootfs(), bundle)
	theirs, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, slices.Concat(theirs, []byte{'\n'}, ours), 0o644)
}

// network creates the container's network and returns its namespace for config.json; nil
// means the machine's own. It writes the files hosts and resolv.conf.
func (b *container) network(n int) (*specs.LinuxNamespace, error) {
	own := &specs.LinuxNamespace{Type: specs.NetworkNamespace}
	hosts, resolv := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n", ""
	switch b.c.Network {
	case networkRegistries:
		for file, text := range map[string]*string{"/etc/hosts": &hosts, "/etc/resolv.conf": &resolv} {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			*text = string(data)
		}
		if !b.sandbox {
			own = nil
		}
	case networkTest:
		ns, err := netns.New()
		if err != nil {
			return nil, err
		}
		b.ended = append(b.ended, ns.Close)
		own.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
		slot := 1 + n%slots
		if b.c == peerCommand {
			slot = 0
		}
		if b.addr, err = b.w.up.Plug(own.Path, slot); err != nil {
			return nil, err
		}
		hosts += fmt.Sprintf("127.0.0.1\talias.test\n%s\t%s\n", b.addr, hostname)
		resolv = fmt.Sprintf("nameserver %s\noptions timeout:3 attempts:4\n", b.w.up.Inside())
	default:
		hosts += "127.0.1.1\t" + hostname + "\n"
	}
	return own, errors.Join(
		os.WriteFile(filepath.Join(b.dir, "hosts"), []byte(hosts), 0o644),
		os.WriteFile(filepath.Join(b.dir, "resolv.conf"), []byte(resolv), 0o644),
	)
}

// spec returns the config.json for both runtimes: Docker's for an unprivileged container.
func (b *container) spec(network *specs.LinuxNamespace) *specs.Spec {
	caps := slices.Concat([]string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}, b.c.Capabilities)
	held := &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if b.c.User != 0 {
		held = &specs.LinuxCapabilities{Bounding: caps}
	}
	bind := func(source, destination, mode string) specs.Mount {
		return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"bind", mode}}
	}
	s := &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: "rootfs"}, Hostname: hostname,
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", b.c.Run}, Cwd: "/root", Env: b.environment(), Terminal: b.c.TTY,
			User: specs.User{UID: b.c.User, GID: b.c.User}, Capabilities: held,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			bind(filepath.Join(b.dir, "hosts"), "/etc/hosts", "rw"), bind(filepath.Join(b.dir, "resolv.conf"), "/etc/resolv.conf", "rw"),
			bind(b.w.goroot, "/usr/local/go", "ro"),
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if b.c.Unmasked {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	if network != nil {
		s.Linux.Namespaces = append(s.Linux.Namespaces, *network)
	}
	if b.c == peerCommand {
		s.Mounts = append(s.Mounts, bind(b.w.tls, "/tls", "ro"))
	}
	return s
}

func (b *container) environment() []string {
	home := "/root"
	if b.c.User != 0 {
		home = "/tmp"
	}
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin", "HOME=" + home, "LC_ALL=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "GOTOOLCHAIN=local", "GOSUMDB=off", "GOFLAGS=-modcacherw", "GOTELEMETRY=off",
	}, b.w.registries.environment()...)
}

// runtime returns the command line of the container's runtime up to the verb.
func (b *container) runtime() []string {
	root := filepath.Join(b.w.dir, "state", filepath.Base(b.w.runc))
	if !b.sandbox {
		return []string{b.w.runc, "--root", root}
	}
	args := []string{
		filepath.Join(b.w.bin, "openshell-runtime"), "--root", b.state(), "--config", b.w.config,
		"--policy", filepath.Join(b.dir, "policy.yaml"), "--upstream-ca", filepath.Join(b.w.tls, "ca.pem"),
	}
	if b.c.Network == networkRegistries {
		args = append(args, "--egress", "host")
	}
	return args
}

// state returns the root of the sandboxes' states.
func (b *container) state() string { return filepath.Join(b.w.dir, "state", "openshell") }

// runArgv returns the command line that runs the container until it ends.
func (b *container) runArgv() []string {
	if !b.sandbox || !b.c.CLI || len(b.c.Exec) > 0 {
		return append(b.runtime(), "run", "--bundle", b.dir, b.id)
	}
	argv := []string{
		filepath.Join(b.w.bin, "openshell"), "run", "--root", b.state(), "--config", b.w.config, "--rootfs", b.rootfs(),
		"--policy", filepath.Join(b.dir, "policy.yaml"), "--name", b.id, "--workdir", "/root", "--user", fmt.Sprintf("%d:%d", b.c.User, b.c.User),
		"--volume", b.w.goroot + ":/usr/local/go:ro",
	}
	for _, e := range b.environment() {
		argv = append(argv, "--env", e)
	}
	if b.c.TTY {
		argv = append(argv, "--tty")
	}
	return append(argv, "--", "/bin/sh", "-c", b.c.Run)
}

// execArgv returns the command line that runs one more script in the container.
func (b *container) execArgv(script string) []string {
	argv := append(b.runtime(), "exec", b.id)
	if b.sandbox && b.c.CLI {
		argv = []string{filepath.Join(b.w.bin, "openshell"), "exec", "--root", b.state(), b.id}
	}
	return append(argv, "/bin/sh", "-c", script)
}

// invoke runs argv, which comes from one of the functions above, and returns the exit
// status. out and errs are files: with pipes it would wait as long as a process in the
// container holds them open.
func (b *container) invoke(ctx context.Context, argv []string, out, errs *os.File) (int, error) {
	if b.c.Umask != "" {
		argv = append([]string{"/bin/sh", "-c", `umask "$0" && exec "$@"`, b.c.Umask}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, errs, waitDelay
	// A new session has no controlling terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if b.c.TTY && !b.sandbox {
		return onTerminal(ctx, cmd, out)
	}
	return exitStatus(ctx, cmd.Run())
}

// onTerminal runs cmd with a controlling terminal, whose output goes to out.
func onTerminal(ctx context.Context, cmd *exec.Cmd, out *os.File) (int, error) {
	pty, name, err := console.NewPty()
	if err != nil {
		return 0, err
	}
	defer pty.Close()
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	if closing := tty.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(out, pty) // the last holder's close ends it with EIO
	return exitStatus(ctx, cmd.Wait())
}

func exitStatus(ctx context.Context, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return statusTimeout, nil
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, err
}

// delete kills the container, if there is one.
func (b *container) delete() {
	// A new context: the command's may have ended.
	ctx, cancel := context.WithTimeout(context.Background(), defaultTimeout)
	defer cancel()
	argv := append(b.runtime(), "delete", "--force", b.id)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = waitDelay
	_ = cmd.Run() // fails if the container is gone, which is the usual case
}

func (b *container) close() error {
	var errs []error
	for _, end := range slices.Backward(b.ended) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// layer returns the files of the container's layer: the kind of each path.
func (b *container) layer() (map[string]string, error) {
	upper := filepath.Join(b.dir, "upper")
	all := map[string]string{}
	return all, filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		kind := info.Mode().Type().String()
		if info.Mode().IsRegular() && info.Size() == 0 {
			kind = "empty file"
		}
		all[strings.TrimPrefix(path, upper)] = kind
		return nil
	})
}

// left lists the files of the layer that the container has added or changed in kind.
func (b *container) left() (string, error) {
	after, err := b.layer()
	if err != nil {
		return "", err
	}
	var lines []string
	for path, kind := range after {
		if b.before[path] != kind {
			lines = append(lines, fmt.Sprintf("in the layer: %s %s\n", kind, path))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}
