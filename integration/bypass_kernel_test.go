// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openPolicy restricts no files and no capability: what stops the workload then is
// not the policy.
const openPolicy = "version: 1\nfilesystem_policy: {}\nnetwork_policies: {}\n"

// edit changes a bundle's config.json.
func (w *world) edit(dir string, change func(spec map[string]any)) {
	w.t.Helper()
	file := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(file)
	spec := map[string]any{}
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err == nil {
		change(spec)
		text, err = json.Marshal(spec)
	}
	if err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// privileged gives the first process every capability an engine can ask for.
func privileged(spec map[string]any) {
	var all []any
	for _, c := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "KILL", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN", "NET_RAW", "SYS_ADMIN",
		"SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_BOOT", "SYS_TIME", "MKNOD", "BPF", "PERFMON", "SYSLOG",
	} {
		all = append(all, "CAP_"+c)
	}
	spec["process"].(map[string]any)["capabilities"] = map[string]any{"bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all}
}

// answers reads NAME=ERRNO pairs of what a probe printed.
func answers(t *testing.T, out string) map[string]string {
	t.Helper()
	pairs, ok := strings.CutPrefix(out, "ok: ")
	if !ok {
		t.Fatalf("printed %q", out)
	}
	got := map[string]string{}
	for _, pair := range strings.Fields(pairs) {
		i := strings.LastIndex(pair, "=")
		got[pair[:i]] = pair[i+1:]
	}
	return got
}

// notThere are the calls that fail with ENOSYS, so that a program falls back to an
// older call or does without.
var notThere = []string{"clone3", "open_tree_attr", "file_getattr", "file_setattr", "keyctl"}

// TestBypass_B43_B48_Calls: the calls that lead out of a sandbox fail with EPERM
// before the kernel looks at their arguments, io_uring's too (libuv probes for it);
// clone3, whose flags no filter reads, and calls newer than the filter's lists are
// not there.
func TestBypass_B43_B48_Calls(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: openPolicy, config: "tracing: deny\n", spec: privileged})
	got := answers(t, b.exec("/bin/probe", "calls"))
	if len(got) != 47 {
		t.Errorf("%d calls", len(got))
	}
	for call, errno := range got {
		want := "EPERM"
		if slices.Contains(notThere, call) {
			want = "ENOSYS"
		}
		if errno != want {
			t.Errorf("%s: %s, want %s", call, errno, want)
		}
	}
}

// TestRefusedCallsFailAsInTheKernel: calls for which a process needs a capability fail as
// they do for a process without it and outside any sandbox, whatever capabilities an
// engine grants.
func TestRefusedCallsFailAsInTheKernel(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: netPolicy, spec: privileged})
	outside, err := exec.Command(filepath.Join(b.bin, "probe"), "privileged", "nobody").Output()
	if err != nil {
		t.Fatal(err)
	}
	control := answers(t, strings.TrimSpace(string(outside)))
	got := answers(t, b.exec("/bin/probe", "privileged"))
	if len(got) != len(control) || len(got) < 25 {
		t.Errorf("%d answers, %d outside", len(got), len(control))
	}
	for call, errno := range got {
		// A kernel may be built without modules, accounting, swap and the like.
		if errno != "EPERM" || control[call] != errno && control[call] != "ENOSYS" {
			t.Errorf("%s: %s, outside %s", call, errno, control[call])
		}
	}
}

// TestBypass_B90_KernelFamilies: the socket families and protocols of the kernel
// that few programs need (AF_ALG, IPsec, RxRPC, vsock and the like) do not open in a
// sandbox that has every capability an engine can grant. The error is that of a kernel
// without the family, by which useradd and sshd know that there is no audit interface.
func TestBypass_B90_KernelFamilies(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: openPolicy, spec: privileged})
	outside, err := exec.Command(filepath.Join(b.bin, "probe"), "kernelfamilies").Output()
	if err != nil {
		t.Fatal(err)
	}
	control := answers(t, strings.TrimSpace(string(outside)))
	got := answers(t, b.exec("/bin/probe", "kernelfamilies"))
	if len(got) != len(control) || len(got) < 40 {
		t.Errorf("%d answers, %d outside", len(got), len(control))
	}
	same := 0
	for what, errno := range got {
		want := "ENOPROTOOPT"
		switch kind, _, _ := strings.Cut(what, "_"); kind {
		case "AF":
			want = "EAFNOSUPPORT"
		case "NETLINK":
			want = "EPROTONOSUPPORT"
		case "TCP":
			want = "ENOENT"
		}
		if errno != want {
			t.Errorf("%s: %s, want %s", what, errno, want)
		}
		switch control[what] {
		case want: // this kernel does not have it
			same++
		case "EAFNOSUPPORT", "ENOPROTOOPT":
			t.Errorf("%s: %s, without a sandbox %s", what, errno, control[what])
		}
	}
	if control["NETLINK_GENERIC"] != "0" || control["AF_PACKET"] != "0" || control["NETLINK_AUDIT"] != "0" {
		t.Errorf("outside the sandbox: %v", control)
	}
	t.Logf("%d errors are those of this kernel; outside: %s", same, outside)
}

// TestUsersInDebian: programs that make users and change to them run in a Debian
// sandbox. They open the audit interface of the kernel, and go on without it only where
// the error says that the kernel has none.
func TestUsersInDebian(t *testing.T) {
	w := newWorld(t, openPolicy)
	w.rootfs = debian(t)
	out, status := w.runWith(nil, "/bin/sh", "-ec", `
useradd --create-home --shell /bin/sh alice
groupadd crew
usermod --append --groups crew alice
echo alice:secret | chpasswd
passwd --status alice | cut -d' ' -f1,2
su - alice -c 'id -nG; basename "$PWD"'
runuser -u alice -- id -un
gpasswd --delete alice crew
userdel --remove alice 2>/dev/null
groupdel crew
id alice 2>/dev/null || echo gone`)
	want := "alice P\nalice crew\nalice\nalice\nRemoving user alice from group crew\ngone\n"
	if strings.TrimSpace(out) != strings.TrimSpace(want) || status != 0 {
		t.Errorf("status %d, printed %q", status, out)
	}
}

// TestBypass_B47_OtherTables: the numbers of another system call table are judged
// by the same names.
func TestBypass_B47_OtherTables(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the probe enters other tables on amd64 only")
	}
	b := newBox(t, boxOptions{policy: openPolicy, config: "tracing: deny\n", spec: privileged})
	out := b.exec("/bin/probe", "abi")
	if strings.Contains(out, "SIGSEGV") {
		t.Skip("this kernel has no 32-bit table")
	}
	for call, errno := range answers(t, out) {
		want := "EPERM"
		switch call {
		case "i386:getpid":
			want = "true"
		case "i386:clone3", "i386:open_tree_attr", "i386:socketcall", "x32:open_tree_attr":
			want = "ENOSYS"
		case "i386:socket(AF_PACKET)", "i386:socket(AF_VSOCK)", "x32:socket(AF_PACKET)":
			want = "EAFNOSUPPORT"
		}
		if errno != want {
			t.Errorf("%s: %s, want %s", call, errno, want)
		}
	}
}

// TestBypass_B51_Masks: where the policy restricts no files and the workload is root,
// the machine's parts of proc and sysfs are still not to be read or written.
func TestBypass_B51_Masks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, openPolicy)
	files := map[string]string{ // what reading gives, and what opening to write does
		"/proc/kcore":                     "0B,EACCES|0B,0|EACCES,EACCES", // masked by /dev/null
		"/proc/keys":                      "0B,EACCES|0B,0|EACCES,EACCES",
		"/proc/timer_list":                "0B,EACCES|0B,0|EACCES,EACCES",
		"/proc/sysrq-trigger":             "*,EROFS",
		"/proc/sys/kernel/core_pattern":   "*,EROFS",
		"/proc/sys/kernel/hostname":       "*,EROFS",
		"/proc/sys/vm/panic_on_oom":       "*,EROFS",
		"/proc/irq/default_smp_affinity":  "*,EROFS",
		"/sys/firmware/memmap":            "ENOENT,ENOENT",
		"/sys/firmware/acpi":              "ENOENT,ENOENT",
		"/sys/kernel/uevent_helper":       "*,EROFS|ENOENT,ENOENT",
		"/sys/kernel/mm/ksm/run":          "*,EROFS|ENOENT,ENOENT",
		"/sys/fs/cgroup/release_agent":    "*,EROFS|ENOENT,ENOENT",
		"/sys/fs/cgroup/cgroup.procs":     "*,EROFS|ENOENT,ENOENT",
		"/sys/fs/cgroup/memory/../x/none": "ENOENT,ENOENT",
	}
	argv := []string{"/bin/probe", "peek"}
	for file := range files {
		argv = append(argv, file)
	}
	out, _ := w.run(argv...)
	for file, want := range files {
		_, got, found := strings.Cut(" "+out, " "+file+":")
		got, _, _ = strings.Cut(strings.TrimPrefix(got, "ok: "), " ")
		if got == "ENOENT,ENOENT" {
			if _, err := os.Stat(file); err != nil {
				continue // this kernel has none
			}
		}
		read, write, _ := strings.Cut(got, ",")
		ok := false
		for alternative := range strings.SplitSeq(want, "|") {
			r, w, _ := strings.Cut(alternative, ",")
			ok = ok || (r == "*" || r == read) && w == write
		}
		if !found || !ok {
			t.Errorf("%s: %q, want %s", file, got, want)
		}
	}
}

// TestBypass_B51_B57_Refused: config.json that asks for less than a sandbox's walls
// is refused by field, and leaves nothing.
func TestBypass_B51_B57_Refused(t *testing.T) {
	t.Parallel()
	linux := func(spec map[string]any) map[string]any { return spec["linux"].(map[string]any) }
	add := func(mount map[string]any) func(map[string]any) {
		return func(spec map[string]any) { spec["mounts"] = append(spec["mounts"].([]any), mount) }
	}
	for _, tc := range []struct {
		name, field string
		change      func(spec map[string]any)
	}{
		{"writable sysfs", "mounts", add(map[string]any{"destination": "/sys", "type": "sysfs", "source": "sysfs"})},
		{"the host's proc", "mounts", add(map[string]any{"destination": "/mnt", "source": "/proc", "options": []any{"rbind"}})},
		{"debugfs", "mounts", add(map[string]any{"destination": "/mnt", "type": "debugfs", "source": "debugfs"})},
		{"every device", "linux.resources.devices", func(s map[string]any) {
			linux(s)["resources"] = map[string]any{"devices": []any{map[string]any{"allow": true, "access": "rwm"}}}
		}},
		{"no namespace of processes", "linux.namespaces.pid", func(s map[string]any) { linux(s)["namespaces"] = linux(s)["namespaces"].([]any)[1:] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			newWorld(t, openPolicy).refuses(tc.field, tc.change)
		})
	}
}

// TestBypass_B51_B57_MasksAreAdded: the sandbox masks what config.json leaves open, takes
// the capabilities away that no sandbox keeps, and says both in its log and in inspect.
func TestBypass_B51_B57_MasksAreAdded(t *testing.T) {
	t.Parallel()
	b := boxOf(t, boxOptions{policy: openPolicy, spec: func(s map[string]any) {
		linux := s["linux"].(map[string]any)
		delete(linux, "maskedPaths")
		delete(linux, "readonlyPaths")
		s["mounts"] = append(s["mounts"].([]any), map[string]any{"destination": "/mnt", "type": "proc", "source": "proc"})
		caps := []any{"CAP_CHOWN", "CAP_NET_RAW", "CAP_NET_ADMIN"}
		s["process"].(map[string]any)["capabilities"] = map[string]any{"bounding": caps, "effective": caps, "permitted": caps}
	}})
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	shown, status := b.cli("inspect", b.id)
	if status != 0 {
		t.Fatalf("inspect: status %d: %s", status, shown)
	}
	for _, said := range []string{"/proc/keys", "/mnt/keys", "/proc/sys", "/mnt/sys", "CAP_NET_ADMIN"} {
		if !strings.Contains(out, said) || !strings.Contains(shown, said) {
			t.Errorf("%s is not in the log or in inspect:\n%s\n%s", said, out, shown)
		}
	}
	if strings.Contains(out, "CAP_NET_RAW") || !strings.Contains(shown, "CAP_NET_RAW") {
		t.Errorf("a capability of every engine is in the log, or not in inspect:\n%s\n%s", out, shown)
	}
	got := strings.Fields(strings.TrimPrefix(b.exec("/bin/probe", "peek", "/proc/keys", "/mnt/keys", "/proc/sys/kernel/core_pattern", "/mnt/sys/kernel/core_pattern"), "ok: "))
	for i, want := range []string{":0B,0", ":0B,0", ",EROFS", ",EROFS"} {
		if len(got) != 4 || !strings.Contains(got[i], want) {
			t.Errorf("peek printed %q, want %s in number %d", got, want, i)
		}
	}
}

// TestAcceptedMounts: what the operator's allow accepts, and the live sockets that it
// lets in, are in the log and in inspect.
func TestAcceptedMounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := boxOf(t, boxOptions{policy: openPolicy, spec: func(s map[string]any) {
		s["mounts"] = append(s["mounts"].([]any), map[string]any{"destination": "/engine", "type": "bind", "source": dir, "options": []string{"rbind"}})
	}})
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err == nil || !strings.Contains(out, "config.json: mounts: ") {
		t.Fatalf("the control: without allow: %v: %s", err, out)
	}
	b.config = b.file("config.yaml", "log_dir: "+b.records()+"\nallow: [mounts]\n")
	out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
	if err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	shown, _ := b.cli("inspect", b.id)
	for _, text := range []string{out, shown} {
		if !strings.Contains(text, "docker.sock") || !strings.Contains(text, "allow") {
			t.Errorf("it does not say what it accepted: %s", text)
		}
	}
	if !strings.Contains(shown, "\nsocket ") {
		t.Errorf("inspect does not show the socket: %s", shown)
	}
}

// refuses fails unless the runtime names field in its refusal of a bundle so changed.
func (w *world) refuses(field string, change func(spec map[string]any)) {
	w.t.Helper()
	dir := w.bundle()
	w.edit(dir, change)
	id := fmt.Sprintf("hostile%d-%d", boxes.Add(1), os.Getpid())
	w.t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	out, err := w.runtime("run", "--detach", "--bundle", dir, id)
	if err == nil || !strings.Contains(out, "config.json: "+field+": ") {
		w.t.Errorf("%v: %s", err, out)
	}
	w.nothingRemains()
}

// TestBypass_B57_Capabilities: of all that an engine can grant, what reaches the
// kernel, the network or other processes is in none of the sets.
func TestBypass_B57_Capabilities(t *testing.T) {
	t.Parallel()
	b := newBox(t, boxOptions{policy: openPolicy, spec: privileged})
	out := b.exec("/bin/probe", "status")
	granted := uint64(0)
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		_, rest, found := strings.Cut(out, set+":\t")
		var bits uint64
		if _, err := fmt.Sscanf(rest, "%x", &bits); !found || err != nil {
			t.Fatalf("%s: %v: %s", set, err, out)
		}
		for name, c := range map[string]int{
			"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE,
			"SYS_MODULE": unix.CAP_SYS_MODULE, "SYS_RAWIO": unix.CAP_SYS_RAWIO, "SYS_BOOT": unix.CAP_SYS_BOOT, "SYS_TIME": unix.CAP_SYS_TIME,
			"MKNOD": unix.CAP_MKNOD, "BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "SYSLOG": unix.CAP_SYSLOG, "DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
		} {
			if bits&(1<<c) != 0 {
				t.Errorf("%s has %s", set, name)
			}
		}
		granted |= bits
	}
	if granted&(1<<unix.CAP_CHOWN) == 0 {
		t.Error("not even CHOWN was granted")
	}
}

// TestBypass_B54_NullDevice: an image whose /dev/null is something else (CVE-2025-31133)
// does not start: that would be mounted over what is masked.
func TestBypass_B54_NullDevice(t *testing.T) {
	t.Parallel()
	const control = "nothing"
	for name, place := range map[string]func(null string) error{
		"link to a sysctl": func(null string) error { return os.Symlink("/proc/sys/kernel/core_pattern", null) },
		"link to a secret": func(null string) error { return os.Symlink("/secret/key", null) },
		"file":             func(null string) error { return os.WriteFile(null, []byte("the image's own"), 0o666) },
		"other device":     func(null string) error { return unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		control:            func(string) error { return nil },
		"folder":           func(null string) error { return os.Mkdir(null, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := boxOf(t, boxOptions{
				policy: openPolicy,
				files: func(rootfs string) {
					if err := place(filepath.Join(rootfs, "dev/null")); err != nil {
						t.Fatal(err)
					}
				},
				spec: func(spec map[string]any) { // no tmpfs over the image's /dev
					spec["mounts"] = slices.DeleteFunc(spec["mounts"].([]any), func(m any) bool { return m.(map[string]any)["destination"] == "/dev" })
				},
			})
			out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id)
			if name != control {
				if err == nil || !strings.Contains(out, "error reopening /dev/null") {
					t.Errorf("%v: %s", err, out)
				}
				b.nothingRemains()
				return
			}
			if err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			if out := b.exec("/bin/probe", "peek", "/proc/keys", "/dev/null"); out != "ok: /proc/keys:0B,0 /dev/null:0B,0" {
				t.Errorf("printed %q", out)
			}
		})
	}
}
