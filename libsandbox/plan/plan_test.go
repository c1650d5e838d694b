// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/policy"
)

func spec(change func(*specs.Spec)) *specs.Spec {
	s := &specs.Spec{
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Cwd: "/work", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_RAW", "CAP_CHOWN"}, Effective: []string{"CAP_SYS_ADMIN", "CAP_CHOWN"}}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.MountNamespace}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

// masks adds what every engine adds: proc and sysfs with their masks.
func masks(s *specs.Spec) {
	s.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}}
	s.Linux.MaskedPaths = []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
	}
	s.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"}
}

// TestMaskedSpecIsAccepted: what engines write into config.json by default is not refused.
func TestMaskedSpecIsAccepted(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"as every engine": masks,
		"all of proc read-only": func(s *specs.Spec) {
			masks(s)
			s.Mounts[0].Options, s.Linux.ReadonlyPaths = []string{"ro"}, nil
		},
		"a whole folder": func(s *specs.Spec) {
			masks(s)
			s.Linux.ReadonlyPaths = []string{"/proc/"}
		},
		"no proc": nil,
		"devices": func(s *specs.Spec) {
			major, minor := int64(136), int64(-1)
			s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"},
			}}
		},
	} {
		if _, err := New(spec(change), &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBypass_B57_HostileSpec: what a tenant may not ask for is refused by its field. It is
// accepted only if the operator names that field.
func TestBypass_B57_HostileSpec(t *testing.T) {
	without := func(ns specs.LinuxNamespaceType) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == ns })
		}
	}
	mount := func(src string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x", Source: src}} }
	}
	kernel := func(kind string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts, s.Linux.MaskedPaths = []specs.Mount{{Destination: "/sys", Type: kind, Source: kind}}, []string{"/sys/firmware"}
		}
	}
	options := func(kind string, options ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/sys", Type: kind, Source: "/srv/data", Options: options}}
		}
	}
	number := func(n int64) *int64 { return &n }
	devices := func(d specs.LinuxDeviceCgroup) func(*specs.Spec) {
		d.Allow = true
		return func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{d}} }
	}
	sysctl := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{name: "1"} }
	}
	for field, changes := range map[string][]func(*specs.Spec){
		"linux.sysctl": {
			sysctl("net.ipv4.conf.all.route_localnet"), sysctl("net/ipv4/conf/eth0.100/route_localnet"), sysctl("net.ipv4.conf.eth0/100.route_localnet"),
			sysctl("NET.IPV4.conf.all.route_localnet"), sysctl("net.ipv4.conf.all.Route_localnet"), sysctl("net.ipv4/conf/all/route_localnet"),
			sysctl("net.ipv4.conf.default.accept_local"), sysctl("net.ipv4.conf.all.rp_filter"), sysctl("net.ipv4.conf.all.src_valid_mark"),
			sysctl("net.ipv4.conf.all.forwarding"), sysctl("net.ipv4.ip_forward"), sysctl("net.ipv4.ip_nonlocal_bind"), sysctl("net.ipv4.tcp_fwmark_accept"),
			sysctl("net.ipv4.tcp_l3mdev_accept"), sysctl("net.ipv4.fwmark_reflect"), sysctl("net.ipv6.fwmark_reflect"), sysctl("net.ipv6.conf.all.forwarding"),
			sysctl("net.ipv6.conf.eth0.accept_ra"), sysctl("net.ipv6.ip_nonlocal_bind"), sysctl("net.netfilter.nf_conntrack_tcp_loose"),
			sysctl("net.ipv4.tcp_x/../conf/all/route_localnet"), sysctl("net/ipv4/tcp_x/../conf/all/route_localnet"),
			sysctl("net.ipv6.conf.x/../all.disable_ipv6"), sysctl("net.ipv4.tcp_syncookies\n"),
		},
		"linux.namespaces.network": {without(specs.NetworkNamespace)},
		"linux.namespaces.pid":     {without(specs.PIDNamespace)},
		"linux.namespaces.ipc":     {without(specs.IPCNamespace)},
		"linux.namespaces.mount":   {without(specs.MountNamespace)},
		"mounts": {
			mount("/var/run/docker.sock"), mount("/run/containerd/containerd.sock"), mount("/tmp/ssh-XXabc/agent.12"), mount("/run"), mount("/var/run/"), mount("/run/openshell"), mount("/run/docker/runtime-runc"), mount("/root/state/@sandbox/box/control.sock"), mount("/x/@sandbox"), mount("/"), mount("/run/containerd"),
			mount("/proc"), mount("/proc/1/root"), mount("/proc/sys"), mount("/sys"), mount("/sys/fs/cgroup"), mount("/run/../sys/kernel"),
			kernel("sysfs"), kernel("debugfs"), kernel("tracefs"), kernel("bpf"),
			kernel("devtmpfs"), kernel("overlay"), kernel("ext4"), kernel("nfs"), kernel("fuse"), kernel("TMPFS"), kernel(""), kernel("none"),
			options("tmpfs", "remount"), options("bind", "bind", "remount", "rw"), options("bind", "rbind", "rshared"), options("bind", "bind", "shared"),
			func(s *specs.Spec) {
				masks(s)
				s.Mounts[1].Options = []string{"ro", "rw"}
			},
			func(s *specs.Spec) {
				masks(s)
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/../mnt", Type: "proc", Source: "proc"})
			},
			mount("/var/lib"), mount("/VAR/lib/Kubelet"), mount("/var/lib/docker/volumes"), mount("/var/run/user/1000"), mount("/dev"), mount("/dev/"),
		},
		"hooks.startContainer": {func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/x"}}}
		}},
		"linux.resources.devices": {
			devices(specs.LinuxDeviceCgroup{Access: "rwm"}),
			devices(specs.LinuxDeviceCgroup{Type: "a", Access: "m"}),
			devices(specs.LinuxDeviceCgroup{Type: "a", Major: number(1), Minor: number(3), Access: "rwm"}),
			devices(specs.LinuxDeviceCgroup{Type: "a", Major: number(-1), Minor: number(-1)}),
			devices(specs.LinuxDeviceCgroup{Type: "b", Access: "r"}),
			devices(specs.LinuxDeviceCgroup{Type: "c", Access: "mw"}),
			devices(specs.LinuxDeviceCgroup{Type: "c", Major: number(-1), Minor: number(3), Access: "rwm"}),
			devices(specs.LinuxDeviceCgroup{Type: "b"}),
		},
	} {
		for _, change := range changes {
			_, err := New(spec(change), &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1})
			var r *Refusal
			if !errors.As(err, &r) || r.Field != field {
				t.Errorf("%s: error %v", field, err)
			}
			if _, err := New(spec(change), &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1, Allow: []string{field}}); err != nil {
				t.Errorf("%s: allowed by the operator, still refused: %v", field, err)
			}
		}
	}
}

// TestBypass_B57_MasksAreAdded: the plan adds the masks that config.json lacks, with a
// warning. It leaves them out only if the operator names the field.
func TestBypass_B57_MasksAreAdded(t *testing.T) {
	every := spec(masks).Linux
	second := func(s *specs.Spec) {
		masks(s)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "proc", Source: "proc", Options: []string{"ro"}})
	}
	change := func(change func(*specs.Linux)) func(*specs.Spec) {
		return func(s *specs.Spec) {
			masks(s)
			change(s.Linux)
		}
	}
	for name, tc := range map[string]struct {
		change func(*specs.Spec)
		field  string
		want   []string
	}{
		"no masks":           {change(func(l *specs.Linux) { l.MaskedPaths = nil }), fieldMasked, every.MaskedPaths},
		"one mask missing":   {change(func(l *specs.Linux) { l.MaskedPaths = l.MaskedPaths[1:] }), fieldMasked, []string{"/proc/acpi"}},
		"another name":       {change(func(l *specs.Linux) { l.MaskedPaths[1] = "/proc/kcor" }), fieldMasked, []string{"/proc/kcore"}},
		"a file below":       {change(func(l *specs.Linux) { l.MaskedPaths[1] = "/proc/kcore/x" }), fieldMasked, []string{"/proc/kcore"}},
		"a second proc":      {second, fieldMasked, []string{"/mnt/acpi", "/mnt/kcore", "/mnt/keys", "/mnt/latency_stats", "/mnt/sched_debug", "/mnt/scsi", "/mnt/timer_list", "/mnt/timer_stats"}},
		"no read-only paths": {change(func(l *specs.Linux) { l.ReadonlyPaths = nil }), fieldReadonly, every.ReadonlyPaths},
		"one missing":        {change(func(l *specs.Linux) { l.ReadonlyPaths = l.ReadonlyPaths[1:] }), fieldReadonly, []string{"/proc/sys"}},
		"a part of one":      {change(func(l *specs.Linux) { l.ReadonlyPaths[0] = "/proc/sys/net" }), fieldReadonly, []string{"/proc/sys"}},
		"all there":          {masks, fieldMasked, nil},
	} {
		given := spec(tc.change)
		p, err := New(given, &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		made := p.Spec(given).Linux
		got, paths := p.MaskedPaths, made.MaskedPaths
		if tc.field == fieldReadonly {
			got, paths = p.ReadonlyPaths, made.ReadonlyPaths
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: adds %q, want %q", name, got, tc.want)
		}
		said := strings.Join(p.Warnings(given, &policy.Policy{}, Options{EnforceByDefault: true}), "\n")
		for _, file := range tc.want {
			if !slices.Contains(paths, file) || !strings.Contains(said, file) {
				t.Errorf("%s: %s is not in %q, or not in %q", name, file, paths, said)
			}
		}
		if !slices.Equal(given.Linux.MaskedPaths, spec(tc.change).Linux.MaskedPaths) {
			t.Errorf("%s: the spec handed in was changed", name)
		}
		if tc.want == nil {
			continue
		}
		p, err = New(given, &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1, Allow: []string{tc.field}})
		if err != nil || p.MaskedPaths != nil || p.ReadonlyPaths != nil || len(p.Accepted) != 1 || !strings.HasPrefix(p.Accepted[0], tc.field+": it lacks "+tc.want[0]) {
			t.Errorf("%s: allowed by the operator: %+v, %v", name, p, err)
		}
	}
}

// TestTakenCapabilities: the plan lists the capabilities that config.json gives and the
// sandbox takes away. It warns of capabilities that no engine gives by default.
func TestTakenCapabilities(t *testing.T) {
	id := uint32(1000)
	caps := func(names ...string) *specs.LinuxCapabilities {
		return &specs.LinuxCapabilities{Bounding: names, Permitted: names[:1]}
	}
	for name, tc := range map[string]struct {
		caps *specs.LinuxCapabilities
		pol  policy.Policy
		want []string
		said string
	}{
		"an engine's own":   {caps("CAP_CHOWN", "CAP_NET_RAW", "CAP_MKNOD"), policy.Policy{}, []string{"CAP_NET_RAW", "CAP_MKNOD"}, ""},
		"added":             {caps("CAP_SYS_PTRACE", "CAP_CHOWN", "CAP_NET_ADMIN"), policy.Policy{}, []string{"CAP_SYS_PTRACE", "CAP_NET_ADMIN"}, "config.json adds CAP_SYS_PTRACE, CAP_NET_ADMIN, which no sandbox keeps"},
		"the policy's user": {caps("CAP_SYS_NICE", "CAP_CHOWN"), policy.Policy{Process: policy.Process{User: &id}}, []string{"CAP_SYS_NICE", "CAP_CHOWN"}, "config.json adds CAP_SYS_NICE, which the policy's run_as_user takes away"},
		"none":              {nil, policy.Policy{}, nil, ""},
	} {
		given := spec(func(s *specs.Spec) {
			masks(s)
			s.Process.Capabilities = tc.caps
		})
		p, err := New(given, &tc.pol, Options{LandlockABI: 7})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.TakenCapabilities, tc.want) {
			t.Errorf("%s: %q", name, p.TakenCapabilities)
		}
		if said := strings.Join(p.Warnings(given, &tc.pol, Options{EnforceByDefault: true}), "\n"); said != tc.said {
			t.Errorf("%s: warned %q", name, said)
		}
		exec := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: append([]string{"CAP_SYS_TIME"}, tc.want...)}}
		if got := p.ExecWarning(exec); !strings.HasPrefix(got, "exec adds CAP_SYS_TIME, which ") {
			t.Errorf("%s: exec warned %q", name, got)
		}
		if got := p.ExecWarning(given.Process); got != "" {
			t.Errorf("%s: an exec as the first process warned %q", name, got)
		}
	}
}

// TestAcceptedRefusals: a refusal that the operator's allow accepts is in the plan and in a
// warning.
func TestAcceptedRefusals(t *testing.T) {
	given := spec(func(s *specs.Spec) {
		masks(s)
		s.Process.Capabilities = nil
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/d.sock", Type: "bind", Source: "/run/docker.sock"}, specs.Mount{Destination: "/ok", Type: "tmpfs"})
	})
	p, err := New(given, &policy.Policy{}, Options{LandlockABI: 7, Allow: []string{fieldMounts, "linux.sysctl"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "mounts: mounts[2] gives the sandbox /run/docker.sock (the socket of an engine or an agent), which leads out of it"
	if !slices.Equal(p.Accepted, []string{want}) || !slices.Contains(p.Warnings(given, &policy.Policy{}, Options{EnforceByDefault: true}), "the operator's allow accepts "+want) {
		t.Errorf("accepted %q, warned %q", p.Accepted, p.Warnings(given, &policy.Policy{}, Options{EnforceByDefault: true}))
	}
}

// TestSysctlsAccepted: sysctls that engines set, and that containers usually ask for, do not
// defeat the rules of the network and are accepted.
func TestSysctlsAccepted(t *testing.T) {
	for _, name := range []string{
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net/ipv4/ping_group_range", "net.core.somaxconn", "net.ipv4.tcp_syncookies",
		"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.ip_local_port_range", "net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6",
		"net/ipv6/conf/eth0.100/disable_ipv6", "net.unix.max_dgram_qlen", "kernel.shm_rmid_forced", "kernel.msgmax", "fs.mqueue.msg_max", "kernel.domainname",
	} {
		s := spec(func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{name: "1"} })
		if _, err := New(s, &policy.Policy{}, Options{LandlockABI: 7, LandlockFloor: 1}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBypass_B45_EngineFolders: a mount is refused if it shows an engine's folder, a folder
// above it, or a part that engines do not mount. The mounts that engines add are
// accepted.
func TestBypass_B45_EngineFolders(t *testing.T) {
	for source, want := range map[string]bool{
		"/": true, "/run": true, "/var": true, "/var/run": true, "/var/lib": true, "/run/": true, "/srv/../run": true, "/RUN/k3s": true,
		"/run/k3s": true, "/run/k3s/containerd": true, "/run/containerd/s": true, "/run/user": true, "/run/user/1000": true, "/run/user/1000/gnupg": true,
		"/run/openshell/@stage": true, "/run/openshell/@stage/rootfs": true, "/run/dbus": true, "/run/systemd": true, "/run/systemd/resolve": true, "/run/podman": true, "/var/run/crio": true,
		"/var/lib/kubelet": true, "/var/lib/kubelet/pods": true, "/var/lib/kubelet/pods/u": true, "/var/lib/kubelet/pods/u/volumes": true,
		"/var/lib/kubelet/device-plugins": true, "/var/lib/kubelet/pki/kubelet-client-current.pem": true, "/var/lib/kubelet/pods/u/volumes/p": true,
		"/var/lib/docker": true, "/var/lib/docker/volumes": true, "/var/lib/docker/volumes/v": true, "/var/lib/docker/volumes/metadata.db": true,
		"/var/lib/docker/containers/c": true, "/var/lib/docker/containers/c/config.v2.json": true, "/var/lib/docker/overlay2/x/merged": true,
		"/var/lib/docker/buildkit": true, "/var/lib/docker/buildkit/executor": true, "/var/lib/docker/buildkit/executor/x/rootfs": true,
		"/var/lib/docker/buildkit/snapshots.db": true, "/var/lib/docker/buildkit/executor/hosts/x": true,
		"/var/lib/docker/tmp": true, "/var/lib/docker/tmp/docker-builder1": true, "/var/lib/docker/safe-mount1": true,
		"/var/lib/containers/storage": true, "/var/lib/rancher/k3s/server/token": true, "/var/lib/rancher/k3s/storage": true,
		"/var/lib/openshell/providers": true, "/var/lib/Docker/volumes/v/_data": true, "/dev": true,

		"/srv": false, "/run/mysqld": false, "/run/secrets": false, "/var/lib/mysql": false, "/var/running": false, "/run2/docker": false, "/run/dockerx": false,
		"/run/systemd/resolve/stub-resolv.conf": false, "/run/openshell/@stage/hosts": false,
		"/var/lib/docker/volumes/v/_data": false, "/var/lib/docker/volumes/v/_data/sub/folder": false, "/var/lib/docker/1000.1000/volumes/v/_data": false,
		"/var/lib/docker/tmp/safe-mount1234567890": false, "/var/lib/docker/100000.100000/tmp/safe-mount1/file": false,
		"/var/lib/docker/buildkit/executor/hosts": false, "/var/lib/docker/buildkit/executor/hosts.abc": false,
		"/var/lib/docker/buildkit/executor/resolv.conf": false, "/var/lib/docker/buildkit/executor/resolv-host.conf": false,
		"/var/lib/docker/containers/c/resolv.conf": false, "/var/lib/docker/containers/c/hosts": false, "/var/lib/docker/containers/c/hostname": false,
		"/var/lib/docker/containers/c/mounts/shm": false, "/var/lib/docker/containers/c/mounts/secrets/s": false,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache": false, "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc/mount": false,
		"/var/lib/kubelet/pods/u/volume-subpaths/v/c/0": false, "/var/lib/kubelet/pods/u/etc-hosts": false, "/var/lib/kubelet/pods/u/containers/c/1a2b": false,
		"/var/lib/containers/storage/volumes/v/_data":                                       false,
		"/run/containers/storage/overlay-containers/c/userdata/.containerenv":               false,
		"/var/lib/containers/storage/overlay-containers/c/userdata/shm":                     false,
		"/run/containers/storage/overlay-containers/c/userdata/run/secrets":                 false,
		"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm":                         false,
		"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/s/resolv.conf":             false,
		"/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm":                     false,
		"/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/s/hosts": false,
		"/var/lib/rancher/k3s/storage/pvc-1_default_data":                                   false,
		"/var/lib/nerdctl/1935db59/volumes/default/v/_data":                                 false,
		"/var/lib/nerdctl/1935db59/etchosts/default/c/hosts":                                false,
	} {
		if why := LeadsOut(source); (why != "") != want {
			t.Errorf("%s: %q", source, why)
		}
	}
}

// TestBypass_B49_LandlockFloor: a kernel without Landlock is an error.
func TestBypass_B49_LandlockFloor(t *testing.T) {
	if _, err := New(spec(nil), &policy.Policy{}, Options{LandlockABI: 0, LandlockFloor: 1}); err == nil {
		t.Error("a kernel without Landlock was accepted")
	}
}

// TestAllow: a name that accepts nothing is an error, and each field of a refusal is a name.
func TestAllow(t *testing.T) {
	for name, want := range map[string]bool{"mount": false, "rootpath": false, "": false, "linux.namespaces.user": false, "mounts": true, "root.path": true, "linux.sysctl": true} {
		_, err := New(spec(nil), &policy.Policy{}, Options{LandlockABI: 7, Allow: []string{name}})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "want some of hooks.startContainer") {
			t.Errorf("allow: [%q]: %v", name, err)
		}
	}
}

func TestProcessLosesPrivileges(t *testing.T) {
	p, err := New(spec(nil), &policy.Policy{}, Options{LandlockABI: 7})
	if err != nil {
		t.Fatal(err)
	}
	before := spec(nil)
	got := p.Process(before.Process)
	if !got.NoNewPrivileges || !slices.Equal(got.Capabilities.Bounding, []string{"CAP_CHOWN"}) || !slices.Equal(got.Capabilities.Effective, []string{"CAP_CHOWN"}) {
		t.Errorf("got %+v", got.Capabilities)
	}
	if len(before.Process.Capabilities.Bounding) != 2 {
		t.Error("the spec handed in was changed")
	}
	id := uint32(1000)
	p, err = New(spec(nil), &policy.Policy{Process: policy.Process{User: &id, Group: &id}}, Options{LandlockABI: 7})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Process(before.Process); got.User.UID != 1000 || got.User.GID != 1000 || len(got.Capabilities.Bounding) != 0 {
		t.Errorf("run_as_user: %+v %+v", got.User, got.Capabilities)
	}
}

func TestRules(t *testing.T) {
	has := func(p *Plan, path string, a landlock.Access) bool {
		return slices.ContainsFunc(p.Ruleset.Rules, func(r landlock.Rule) bool { return r.Path == path && r.Access == a })
	}
	p, err := New(spec(nil), &policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true, ReadOnly: []string{"/usr"}}}, Options{LandlockABI: 7})
	if err != nil {
		t.Fatal(err)
	}
	if !has(p, "/usr", landlock.ReadOnly) || !has(p, "/work", landlock.ReadWrite) || !has(p, "/dev/null", landlock.ReadWrite) || has(p, "/", landlock.ReadWrite) {
		t.Errorf("rules %+v", p.Ruleset.Rules)
	}
	// The working directory / would make every file writable.
	p, err = New(spec(func(s *specs.Spec) { s.Process.Cwd = "/" }), &policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true, ReadOnly: []string{"/usr"}}}, Options{LandlockABI: 7})
	if err != nil || has(p, "/", landlock.ReadWrite) {
		t.Errorf("%v, rules %+v", err, p.Ruleset.Rules)
	}
}

// TestBaseline: policy.Baseline is added to the policy's paths, unless the operator wants
// only the listed paths and the policy has a filesystem_policy.
func TestBaseline(t *testing.T) {
	network := []policy.NetworkPolicy{{Key: "a"}}
	files := policy.Filesystem{Line: 2, ReadOnly: []string{"/opt", "/tmp"}}
	for name, tc := range map[string]struct {
		pol      policy.Policy
		explicit bool
		usr, tmp bool
	}{
		"network alone":                 {policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true}, Network: network}, false, true, true},
		"network alone, explicit":       {policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true}, Network: network}, true, true, true},
		"none of either":                {policy.Policy{Filesystem: policy.Filesystem{IncludeWorkdir: true}}, false, true, true},
		"files and a network":           {policy.Policy{Filesystem: files, Network: network}, false, true, false},
		"files and a network, explicit": {policy.Policy{Filesystem: files, Network: network}, true, false, false},
		"files alone":                   {policy.Policy{Filesystem: files}, false, false, false},
	} {
		p, err := New(spec(nil), &tc.pol, Options{LandlockABI: 7, OnlyListedPaths: tc.explicit})
		if err != nil {
			t.Fatal(err)
		}
		has := func(path string, a landlock.Access, from landlock.Origin) bool {
			return slices.ContainsFunc(p.Ruleset.Rules, func(r landlock.Rule) bool { return r.Path == path && r.Access == a && r.Origin == from })
		}
		if has("/usr", landlock.ReadOnly, landlock.OriginBaseline) != tc.usr || has("/tmp", landlock.ReadWrite, landlock.OriginBaseline) != tc.tmp {
			t.Errorf("%s: rules %+v", name, p.Ruleset.Rules)
		}
		if null := slices.DeleteFunc(slices.Clone(p.Ruleset.Rules), func(r landlock.Rule) bool { return r.Path != "/dev/null" }); len(null) != 1 || null[0].Access != landlock.ReadWrite {
			t.Errorf("%s: rules for /dev/null: %+v", name, null)
		}
		if slices.Contains(tc.pol.Filesystem.ReadOnly, "/tmp") && slices.ContainsFunc(p.Ruleset.Rules, func(r landlock.Rule) bool { return r.Path == "/tmp" && r.Access != landlock.ReadOnly }) {
			t.Errorf("%s: /tmp, which read_only lists, can be written: %+v", name, p.Ruleset.Rules)
		}
	}
}

// TestBaselineInstead: an empty filesystem_policy restricts files to the baseline. Without a
// baseline it restricts nothing.
func TestBaselineInstead(t *testing.T) {
	empty := policy.Filesystem{Line: 2}
	for name, tc := range map[string]struct {
		pol      policy.Policy
		explicit bool
		root     bool
	}{
		"with a network":           {policy.Policy{Filesystem: empty, Network: []policy.NetworkPolicy{{Key: "a"}}}, false, false},
		"with a network, explicit": {policy.Policy{Filesystem: empty, Network: []policy.NetworkPolicy{{Key: "a"}}}, true, true},
		"alone":                    {policy.Policy{Filesystem: empty}, false, true},
	} {
		p, err := New(spec(nil), &tc.pol, Options{LandlockABI: 7, OnlyListedPaths: tc.explicit})
		if err != nil {
			t.Fatal(err)
		}
		if root := slices.ContainsFunc(p.Ruleset.Rules, func(r landlock.Rule) bool { return r.Path == "/" }); root != tc.root {
			t.Errorf("%s: rules %+v", name, p.Ruleset.Rules)
		}
	}
}

// TestHardRequirement: hard_requirement needs a kernel with Landlock. It needs all paths of
// the policy only if the operator wants that.
func TestHardRequirement(t *testing.T) {
	hard := &policy.Policy{Landlock: policy.Landlock{Hard: true}}
	if _, err := New(spec(nil), hard, Options{}); err == nil || !strings.Contains(err.Error(), policy.HardRequirement) {
		t.Errorf("without Landlock: error %v", err)
	}
	if _, err := New(spec(nil), &policy.Policy{}, Options{}); err != nil {
		t.Errorf("best_effort without Landlock: %v", err)
	}
	for _, complete := range []bool{false, true} {
		p, err := New(spec(nil), hard, Options{LandlockABI: 7, RequireAllPaths: complete})
		if err != nil || !p.Ruleset.Hard || p.Ruleset.Complete != complete {
			t.Errorf("complete %t: %+v, %v", complete, p, err)
		}
		if p, err = New(spec(nil), &policy.Policy{}, Options{LandlockABI: 7, RequireAllPaths: complete}); err != nil || p.Ruleset.Hard || p.Ruleset.Complete {
			t.Errorf("best_effort, complete %t: %+v, %v", complete, p, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	mounted := spec(func(s *specs.Spec) {
		s.Process.Capabilities = nil
		s.Mounts = []specs.Mount{
			{Destination: "/data", Source: "/srv/data", Options: []string{"rbind"}},
			{Destination: "/tmp/in", Source: "/srv/in", Type: "bind"},
			{Destination: "/opt", Source: "/srv/opt", Type: "bind"},
			{Destination: "/run", Source: "tmpfs", Type: "tmpfs"},
		}
	})
	pol := &policy.Policy{
		Filesystem: policy.Filesystem{Line: 2, ReadOnly: []string{"/opt/tool/"}, ReadWrite: []string{"/tmp"}},
		Network:    []policy.NetworkPolicy{{Endpoints: []policy.Endpoint{{Protocol: policy.ProtocolREST, Line: 9}, {Protocol: policy.ProtocolREST, Line: 11}}}},
		Notes:      []policy.Warning{{Line: 5}, {Line: 7}},
	}
	const uncovered = "no path of the policy covers /data (mounts[0]), so nothing of it can be opened"
	const old = "OpenShell 0.1 refuses the policy for 2 of its fields (the first in line 5); openshell policy check lists them"
	const audited = "endpoints do not set enforcement, which means audit: requests that their rules refuse are recorded and pass (line 9, 11)"
	for _, tc := range []struct {
		o    Options
		want []string
	}{
		{Options{LandlockABI: 7}, []string{uncovered, old, audited}},
		{Options{LandlockABI: 7, OnlyListedPaths: true, EnforceByDefault: true}, []string{uncovered, old}},
		{Options{}, []string{old, audited}},
	} {
		p, err := New(mounted, pol, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Warnings(mounted, pol, tc.o); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %q", tc.o, got)
		}
	}
}

// TestAddedPaths: the sentence for openshell policy check lists the paths of the baseline.
func TestAddedPaths(t *testing.T) {
	pol := &policy.Policy{
		Filesystem: policy.Filesystem{Line: 2, ReadOnly: []string{"/etc", "/usr"}, ReadWrite: []string{"/tmp", "/dev/null"}},
		Network:    []policy.NetworkPolicy{{Endpoints: []policy.Endpoint{{Line: 9}}}},
	}
	const added = "paths that filesystem_policy does not list are added, because the policy has network rules: /bin, /sbin, /lib, /lib64, /app, /var/log, /proc can be read (the operator's filesystem_baseline: explicit adds none)"
	if got := AddedPaths(pol, false); got != added {
		t.Errorf("%q, want %q", got, added)
	}
	if got := AddedPaths(pol, true); got != "" {
		t.Errorf("explicit: %q", got)
	}
}

// TestNoProxyOnce: NO_PROXY has no name twice, although the container's hosts file also has
// localhost.
func TestNoProxyOnce(t *testing.T) {
	env := environment("", []string{"box", "localhost", "172.17.0.2", "::1"})
	for _, name := range []string{"NO_PROXY=", "no_proxy="} {
		if want := name + noProxy + ",box,172.17.0.2"; !slices.Contains(env, want) {
			t.Errorf("%q does not have %q", env, want)
		}
	}
}

// TestNetworkRefusal: the refusal of the host's network namespace does not mention allow,
// because no operator can accept it.
func TestNetworkRefusal(t *testing.T) {
	r := &Refusal{FieldNetwork, "the host's network namespace would be shared"}
	if got, want := r.Error(), "config.json: linux.namespaces.network: the host's network namespace would be shared; run the container on a network of its own (without --network host)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
