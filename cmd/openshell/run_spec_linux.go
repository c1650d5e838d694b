// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/policy"
)

// The environment a command starts with unless the image or -e says otherwise.
const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultHome = "/root"
)

// hostname is the sandbox's.
const hostname = "sandbox"

// maxTasks bounds the processes and threads of a run: a fork bomb ends in its own
// sandbox. With more than 8192 processes the proxy would not look for a connection's.
const maxTasks = 8192

// maxAccounts bounds /etc/passwd and /etc/group of a root filesystem, in bytes.
const maxAccounts = 4 << 20

// runSpec is the config.json of a run: what runc's default spec is, with the
// command, environment and mounts asked for, by the flags or else by the image.
// The user comes later, when the root filesystem is there to look names up in.
func runSpec(c *cli.Context, img *v1.Config) (*specs.Spec, error) {
	args := c.Args().Slice()
	if len(args) == 0 {
		args = img.Cmd
	}
	args = slices.Concat(img.Entrypoint, args)
	if len(args) == 0 {
		return nil, errors.New("no command given; put it after --")
	}
	cwd := c.String("workdir")
	if cwd == "" {
		cwd = img.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	if !filepath.IsAbs(cwd) {
		return nil, fmt.Errorf("--workdir %q: want an absolute path", cwd)
	}
	env := environment{}
	env.set("PATH=" + defaultPath)
	if c.Bool("tty") {
		env.set("TERM=xterm")
	}
	for _, e := range img.Env {
		env.set(e)
	}
	env.pass(c.StringSlice("env"))
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	}
	tasks := int64(maxTasks)
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: hostname,
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Terminal: c.Bool("tty"), Args: args, Env: env, Cwd: cwd, NoNewPrivileges: true,
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
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, Pids: &specs.LinuxPids{Limit: &tasks},
			},
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

// environment is a list of NAME=VALUE in which a name is once.
type environment []string

// pass sets NAME=VALUE, or NAME to what it is here.
func (e *environment) pass(list []string) {
	for _, v := range list {
		if !strings.Contains(v, "=") {
			value, ok := os.LookupEnv(v)
			if !ok {
				continue // as docker run: there is nothing to pass on
			}
			v += "=" + value
		}
		e.set(v)
	}
}

func (e *environment) set(pair string) {
	if i := e.find(pair); i >= 0 {
		(*e)[i] = pair
		return
	}
	*e = append(*e, pair)
}

// find is where the name of pair is, -1 if nowhere.
func (e *environment) find(pair string) int {
	name, _, _ := strings.Cut(pair, "=")
	return slices.IndexFunc(*e, func(s string) bool { return strings.HasPrefix(s, name+"=") })
}

// setUser gives spec the user that want names, or number, in the root filesystem.
func setUser(spec *specs.Spec, rootfs, want string) error {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root filesystem: %w", err)
	}
	defer unix.Close(root)
	var files [2]io.Reader
	for i, name := range []string{"etc/passwd", "etc/group"} {
		f, err := boundedfile.OpenRegular(root, name, unix.RESOLVE_IN_ROOT)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look up user %q: %w", want, err)
		}
		defer f.Close()
		files[i] = io.LimitReader(f, maxAccounts)
	}
	u, err := user.GetExecUser(want, &user.ExecUser{Home: "/"}, files[0], files[1])
	if err != nil {
		return fmt.Errorf("look up user %q: %w", want, err)
	}
	spec.Process.User = specs.User{UID: uint32(u.Uid), GID: uint32(u.Gid)}
	for _, g := range u.Sgids {
		spec.Process.User.AdditionalGids = append(spec.Process.User.AdditionalGids, uint32(g))
	}
	if u.Uid == 0 && u.Home == "/" {
		u.Home = defaultHome
	}
	env := environment(spec.Process.Env)
	if env.find("HOME=") < 0 {
		env.set("HOME=" + u.Home)
	}
	spec.Process.Env = env
	return nil
}

// hostsFile is /etc/hosts of a run with the names of --add-host, which the proxy
// takes from it, too.
func hostsFile(added []string) (string, error) {
	text := "127.0.0.1\tlocalhost " + hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, a := range added {
		name, ip, _ := strings.Cut(a, ":")
		addr, err := netip.ParseAddr(ip)
		if err != nil || addr.Zone() != "" {
			return "", fmt.Errorf("--add-host %q: want NAME:IP", a)
		}
		host, err := policy.NormalizeHost(name)
		if err != nil {
			return "", fmt.Errorf("--add-host %q: %w", a, err)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return "", fmt.Errorf("--add-host %q: the name is an address", a)
		}
		text += addr.String() + "\t" + host + "\n"
	}
	return text, nil
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
