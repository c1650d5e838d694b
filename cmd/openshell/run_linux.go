// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// stageDir is where each run mounts its bundle. The mount is made in a mount
// namespace of the run's own, so every run uses the same folder, no other
// process sees it, and it is gone with the last process of the run, whatever
// killed it.
const stageDir = "/run/openshell/.stage"

// The environment a command starts with unless -e says otherwise.
const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultHome = "/root"
)

// runCommand makes `openshell run`: a sandbox without a container engine.
func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a command in a sandbox, without a container engine",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: "The root filesystem is read through an ephemeral writable layer that is gone\n" +
			"when the command ends. The exit status is the command's own.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "policy", Usage: "policy `FILE` or the name of one of the operator's policies"},
			&cli.StringFlag{Name: "rootfs", Usage: "root filesystem `DIR` (read only; writes go to the ephemeral layer)", Required: true},
			&cli.StringFlag{Name: "name", Usage: "container `NAME` (default: random)"},
			&cli.StringFlag{Name: "root", Usage: "state `DIR` of the runtime", Value: "/run/openshell"},
			&cli.StringFlag{Name: "runtime", Usage: "openshell-runtime `PATH` (default: beside this program)"},
			&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: "bind mount `SRC:DST[:ro]`"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment variable `NAME[=VALUE]`"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "working `DIR` inside the sandbox", Value: "/"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "numeric `UID[:GID]`", Value: "0:0"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "keep standard input open"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "allocate a terminal"},
		},
		UseShortOptionHandling: true,
		Action:                 runAction,
	}
}

func runAction(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.Exit("openshell run: no command given; put it after --", 2)
	}
	if os.Geteuid() != 0 {
		return cli.Exit("openshell run: needs root", 1)
	}
	rootfs, err := filepath.Abs(c.String("rootfs"))
	if err != nil {
		return fmt.Errorf("resolve --rootfs: %w", err)
	}
	if st, err := os.Stat(rootfs); err != nil || !st.IsDir() {
		return cli.Exit(fmt.Sprintf("openshell run: --rootfs %s is not a directory", rootfs), 1)
	}
	spec, err := runSpec(c)
	if err != nil {
		return cli.Exit("openshell run: "+err.Error(), 2)
	}
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", spec.Hostname)

	// The command is forked from this thread, whose mount namespace is its own.
	// The thread is never given back to the scheduler.
	runtime.LockOSThread()
	if err := stage(rootfs, spec, hosts); err != nil {
		return fmt.Errorf("openshell run: %w", err)
	}
	return execRuntime(c, spec)
}

// runSpec is the config.json of a run: what runc's default spec is, with the
// command, user, environment and mounts asked for.
func runSpec(c *cli.Context) (*specs.Spec, error) {
	uid, gid, err := parseUser(c.String("user"))
	if err != nil {
		return nil, err
	}
	env := []string{"PATH=" + defaultPath, "HOME=" + defaultHome}
	if c.Bool("tty") {
		env = append(env, "TERM=xterm")
	}
	for _, e := range c.StringSlice("env") {
		if !strings.Contains(e, "=") {
			e += "=" + os.Getenv(e)
		}
		env = append(env, e)
	}
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	}
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: "sandbox",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Terminal: c.Bool("tty"), Args: c.Args().Slice(), Env: env, Cwd: c.String("workdir"),
			User: specs.User{UID: uid, GID: gid}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/etc/hosts", Type: "bind", Source: filepath.Join(stageDir, "hosts"), Options: []string{"bind", "rw"}},
			{Destination: "/etc/resolv.conf", Type: "bind", Source: filepath.Join(stageDir, "resolv.conf"), Options: []string{"bind", "rw"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}},
			Resources:  &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, v := range c.StringSlice("volume") {
		m, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		s.Mounts = append(s.Mounts, m)
	}
	return s, nil
}

func parseUser(s string) (uid, gid uint32, err error) {
	user, group, both := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(user+"\n", "%d\n", &uid); err != nil {
		return 0, 0, fmt.Errorf("--user %q: want numeric UID[:GID]", s)
	}
	if !both {
		return uid, uid, nil
	}
	if _, err := fmt.Sscanf(group+"\n", "%d\n", &gid); err != nil {
		return 0, 0, fmt.Errorf("--user %q: want numeric UID[:GID]", s)
	}
	return uid, gid, nil
}

func parseVolume(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	mode := "rw"
	if len(parts) == 3 {
		mode = parts[2]
	}
	if len(parts) < 2 || len(parts) > 3 || !filepath.IsAbs(parts[1]) || (mode != "ro" && mode != "rw") {
		return specs.Mount{}, fmt.Errorf("--volume %q: want SRC:DST or SRC:DST:ro with an absolute DST", s)
	}
	src, err := filepath.Abs(parts[0])
	if err != nil {
		return specs.Mount{}, fmt.Errorf("--volume %q: %w", s, err)
	}
	return specs.Mount{Destination: parts[1], Type: "bind", Source: src, Options: []string{"rbind", mode}}, nil
}

// stage gives the calling thread a mount namespace of its own and lays the
// bundle out in it: config.json, and rootfs as an overlay on a tmpfs.
//
// Preconditions: the calling goroutine is locked to its thread for good.
func stage(rootfs string, spec *specs.Spec, hosts string) error {
	if err := os.MkdirAll(stageDir, 0o700); err != nil {
		return fmt.Errorf("create %s: %w", stageDir, err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("create mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("openshell", stageDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711"); err != nil {
		return fmt.Errorf("mount ephemeral layer: %w", err)
	}
	dirs := map[string]string{}
	for _, d := range []string{"rootfs", "upper", "work"} {
		dirs[d] = filepath.Join(stageDir, d)
		if err := os.Mkdir(dirs[d], 0o755); err != nil {
			return fmt.Errorf("create ephemeral layer: %w", err)
		}
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	files := map[string]string{"config.json": string(data), "hosts": hosts, "resolv.conf": "# no network, no resolver\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(stageDir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	// The lower directory is named through a descriptor: a path with ':' or ','
	// in it would otherwise be read as options.
	fd, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open --rootfs %s: %w", rootfs, err)
	}
	defer unix.Close(fd)
	opts := fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=%s,workdir=%s", fd, dirs["upper"], dirs["work"])
	if err := unix.Mount("overlay", dirs["rootfs"], "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay on --rootfs %s: %w", rootfs, err)
	}
	return nil
}

func execRuntime(c *cli.Context, spec *specs.Spec) error {
	bin := c.String("runtime")
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find openshell-runtime: %w", err)
		}
		bin = filepath.Join(filepath.Dir(self), "openshell-runtime")
	}
	id := c.String("name")
	if id == "" {
		var b [6]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("choose a name: %w", err)
		}
		id = "run-" + hex.EncodeToString(b[:])
	}
	args := []string{"--root", c.String("root")}
	if p := c.String("policy"); p != "" {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			if p, err = filepath.Abs(p); err != nil {
				return fmt.Errorf("resolve --policy: %w", err)
			}
		}
		args = append(args, "--policy", p)
	}
	cmd := exec.Command(bin, append(args, "run", "--bundle", stageDir, id)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if c.Bool("interactive") || spec.Process.Terminal {
		cmd.Stdin = os.Stdin
	}
	// The runtime forwards signals to the command; it must not die with us
	// before it has cleaned up, and must not outlive us if we are killed.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM}
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(sigs)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", bin, err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-sigs:
				// A terminal sends to the whole group; a signal sent to us alone
				// is passed on. Sending twice what arrives once is harmless.
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return cli.Exit("", 128+int(ws.Signal()))
		}
		return cli.Exit("", exit.ExitCode())
	}
	return err
}
