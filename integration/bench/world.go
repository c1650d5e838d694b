// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// serverAddress is the upstream's address on this namespace's lo.
const serverAddress = "10.231.77.1"

// Names and ports of the upstream. The policy treats each of them differently.
const (
	inspectedName, splicedName, rawName = "api.test", "plain.test", "raw.test"
	tlsPort, rawPort                    = "443", "9000"
)

// policyText has one inspected endpoint, one whose TLS is not terminated, and one whose
// bytes are not inspected.
const policyText = `version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/bin, /etc, /proc, /dev/urandom]
  read_write: [/tmp, /dev/null]
network_policies:
  api:
    endpoints:
      - host: api.test
        port: 443
        protocol: rest
        enforcement: enforce
        allowed_ips: [10.231.77.1]
        rules:
          - allow: {method: GET, path: /**}
    binaries: [{path: /bin/bench}]
  plain:
    endpoints:
      - {host: plain.test, port: 443, allowed_ips: [10.231.77.1]}
      - {host: raw.test, port: 9000, protocol: tcp, allowed_ips: [10.231.77.1]}
    binaries: [{path: /bin/bench}]
`

// bench is one run.
type bench struct {
	options
	report report
	dir    string
	rootfs string
	policy string
	config string
	ended  []func()
	// brief is the bundle of a container that ends at once.
	brief string
	// http1 and direct1 are the rates with which HTTP/2 is compared.
	http1, direct1 float64
}

func newBench(o options) (_ *bench, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root")
	}
	b := &bench{options: o}
	if b.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	if b.runc == "" {
		b.runc = filepath.Join(b.bin, "runc")
	}
	b.report.Machine = machine(b.runc)
	if b.dir, err = os.MkdirTemp("", "openshell-bench-"); err != nil {
		return nil, err
	}
	b.ended = append(b.ended, func() { _ = os.RemoveAll(b.dir) })
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	for i := len(b.ended) - 1; i >= 0; i-- {
		b.ended[i]()
	}
}

// prepare sets up the namespace and creates the root filesystem.
func (b *bench) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(serverAddress).To4(), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	// Other users must be able to read what is not secret here: squid changes its user.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	// The state is in memory, as in /run.
	run := filepath.Join(b.dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount a folder for state: %w", err)
	}
	b.ended = append(b.ended, func() { _ = unix.Unmount(run, unix.MNT_DETACH) })
	b.rootfs = filepath.Join(b.dir, "rootfs")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(b.rootfs, d), 0o755); err != nil {
			return err
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.rootfs, "bin/bench"), self, 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n"
	for _, name := range []string{inspectedName, splicedName, rawName} {
		hosts += serverAddress + " " + name + "\n"
	}
	b.policy, b.config = filepath.Join(b.dir, "policy.yaml"), filepath.Join(b.dir, "config.yaml")
	for file, text := range map[string]string{
		filepath.Join(b.rootfs, "etc/hosts"): hosts, filepath.Join(b.dir, "hosts"): hosts,
		b.policy: policyText, b.config: "log_dir: " + filepath.Join(b.dir, "log") + "\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The peers look up the names here.
	if err := unix.Mount(filepath.Join(b.dir, "hosts"), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount hosts: %w", err)
	}
	return nil
}

// bundle writes a bundle whose process is argv.
func (b *bench) bundle(name string, argv ...string) (string, error) {
	dir := filepath.Join(b.dir, "bundle-"+name)
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"}
	s := specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: b.rootfs, Readonly: true},
		Process: &specs.Process{
			Args: argv, Cwd: "/", Env: []string{"PATH=/bin", "GOGC=400"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
	}
	return dir, err
}

// runtime returns the command line of our runtime up to the verb.
func (b *bench) runtime() []string {
	return []string{
		filepath.Join(b.bin, "openshell-runtime"), "--root", filepath.Join(b.dir, "run/openshell"), "--config", b.config, "--policy", b.policy,
		"--egress", "host", "--upstream-ca", b.caFile(),
	}
}

func (b *bench) caFile() string { return filepath.Join(b.dir, "ca.pem") }

// child starts a program that lives as long as this one. It returns when address accepts
// connections.
func (b *bench) child(address string, argv ...string) (*exec.Cmd, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	log, err := os.Create(filepath.Join(b.dir, filepath.Base(argv[0])+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, b.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.ended = append(b.ended, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return cmd, c.Close()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s does not serve: %w: %s", argv[0], err, text)
		}
	}
}

// upstream starts the server, unless it is running.
func (b *bench) upstream() error {
	if _, err := os.Stat(b.caFile()); err == nil {
		return nil
	}
	_, err := b.child(net.JoinHostPort(serverAddress, rawPort), "/proc/self/exe", "server", b.caFile())
	return err
}

// worker is an agent with its input and output.
type worker struct {
	in   *json.Encoder
	out  *json.Decoder
	stop func()
}

// worker starts an agent. argv runs `bench agent` somewhere.
func (b *bench) worker(argv ...string) (*worker, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOGC=400")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &worker{json.NewEncoder(in), json.NewDecoder(out), func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}}
	return w, nil
}

func (w *worker) do(j job) (r result, err error) {
	if err := w.in.Encode(j); err != nil {
		return r, err
	}
	if err := w.out.Decode(&r); err != nil {
		return r, fmt.Errorf("the agent ended: %w", err)
	}
	if r.Err != "" {
		return r, fmt.Errorf("%s of %s by way of %q: %s", j.Kind, j.Name, j.Proxy, r.Err)
	}
	return r, nil
}
