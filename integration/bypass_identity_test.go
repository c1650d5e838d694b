// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/testenv"
)

// identityPolicy allows programs by different kinds of paths. The container's first
// process is none of them: what a policy allows a program it allows its children.
const identityPolicy = `version: 1
filesystem_policy:
  read_only: [/bin, /sbin, /usr, /lib, /lib64, /etc, /proc]
  read_write: [/tmp]
network_policies:
  api:
    endpoints:
      - {host: api.test, port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: api.test, port: 80, protocol: rest, enforcement: enforce, access: read-only}
    binaries: [{path: /bin/probe}, {path: /bin/dash}, {path: /sbin/tool}, {path: /tmp/tool}, {path: /tmp/gone}, {path: /usr/bin/curl}]
`

// newIdentityBox has the probe as /bin/probe, as /bin/first, which runs first, and
// as /bin/other; /bin/dash is a link to /bin/shell, /sbin one to /usr/bin, and
// /bin/hard another name of /bin/probe.
func newIdentityBox(t *testing.T) *box {
	t.Helper()
	return newBox(t, boxOptions{policy: identityPolicy, argv: []string{"/bin/first", "sleep", "10m"}, files: func(rootfs string) {
		probe, err := os.ReadFile(filepath.Join(rootfs, "bin/probe"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bin/first", "bin/other", "bin/shell", "usr/bin/tool"} {
			file := filepath.Join(rootfs, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, probe, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		err = errors.Join(
			os.Symlink("shell", filepath.Join(rootfs, "bin/dash")), os.Symlink("usr/bin", filepath.Join(rootfs, "sbin")),
			os.Link(filepath.Join(rootfs, "bin/probe"), filepath.Join(rootfs, "bin/hard")),
		)
		if err != nil {
			t.Fatal(err)
		}
		dynamic(t, rootfs, "/usr/bin/curl")
	}})
}

// dynamic copies a program of the host with its libraries into rootfs.
func dynamic(t *testing.T, rootfs, program string) {
	t.Helper()
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("ldd %s, which make setup installs: %v", program, err)
	}
	for _, file := range append(regexp.MustCompile(`/[^ ]+`).FindAllString(string(out), -1), program) {
		data, err := os.ReadFile(file)
		to := filepath.Join(rootfs, file)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBypass_B34_InjectedCode: a binary is a file, not what runs in it. Code that
// LD_PRELOAD brings into a permitted program passes for that program, which is not
// stopped; what it reaches is what the program's rule allows and nothing else, and in a
// program without a rule it reaches nothing.
func TestBypass_B34_InjectedCode(t *testing.T) {
	testenv.Require(t, testenv.Compiler)
	t.Parallel()
	library := filepath.Join(t.TempDir(), "inject.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, "testdata/inject.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	b := newBox(t, boxOptions{policy: identityPolicy, files: func(rootfs string) {
		for _, program := range []string{"/usr/bin/curl", "/usr/bin/cat"} {
			dynamic(t, rootfs, program)
		}
		data, err := os.ReadFile(library)
		err = errors.Join(
			err, os.WriteFile(filepath.Join(rootfs, "usr/inject.so"), data, 0o755),
			os.Rename(filepath.Join(rootfs, "bin/probe"), filepath.Join(rootfs, "bin/first")),
		)
		if err != nil {
			t.Fatal(err)
		}
	}, argv: []string{"/bin/first", "sleep", "10m"}})
	for _, tc := range []struct {
		name, program, inject string
		// arrives says what the program's rule allows.
		arrives bool
	}{
		{"what the rule allows", "/usr/bin/curl", "GET api.test /injected", true},
		{"another method", "/usr/bin/curl", "POST api.test /injected", false},
		{"another host", "/usr/bin/curl", "GET denied.test /injected", false},
		{"a program without a rule", "/usr/bin/cat", "GET api.test /injected", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			out := b.execEnv([]string{"LD_PRELOAD=/usr/inject.so", "INJECT=" + tc.inject}, tc.program, "--version")
			if !strings.Contains(out, "injected: ") {
				t.Fatalf("the code did not run: %q", out)
			}
			if !tc.arrives {
				b.noRequestArrived([]string{tc.program, tc.inject}, out)
				r := b.record("the refusal", func(r decisionlog.Record) bool { return r.Verdict == "deny" && r.Binary == tc.program })
				if r.Port != 80 {
					t.Errorf("recorded %+v", r)
				}
				return
			}
			if got := b.up.Requests(); len(got) != 1 || !strings.Contains(out, "injected: HTTP/1.1 200") {
				t.Errorf("printed %q, arrived %v", out, got)
			}
			b.record("the request", func(r decisionlog.Record) bool {
				return r.Verdict == "allow" && r.Binary == tc.program && r.Path == "/injected"
			})
		})
	}
}

var get = []string{"direct", "GET", "https://api.test/x"}

// TestBypass_B32_OtherNames: an allowed program under another name is another
// program, and another program under an allowed name is refused (B32, B35, B36).
func TestBypass_B32_OtherNames(t *testing.T) {
	t.Parallel()
	b := newIdentityBox(t)
	b.allowed(append([]string{"/bin/probe"}, get...)...)
	steps := func(commands ...string) [][]string {
		var out [][]string
		for _, c := range commands {
			out = append(out, strings.Fields(c))
		}
		return out
	}
	for _, tc := range []struct {
		name    string
		before  [][]string
		program []string
	}{
		{"another program", nil, []string{"/bin/other"}},
		{"copy", steps("/bin/probe copy /bin/probe /tmp/copy"), []string{"/tmp/copy"}},
		{"hard link in the image", nil, []string{"/bin/hard"}},
		{"hard link", steps("/bin/probe copy /bin/probe /tmp/tool", "/bin/probe link /tmp/tool /tmp/hard"), []string{"/tmp/hard"}},
		{"renamed", steps("/bin/probe copy /bin/probe /tmp/tool", "/bin/probe rename /tmp/tool /tmp/renamed"), []string{"/tmp/renamed"}},
		{"by /proc/self/root", nil, []string{"/bin/other", "run", "/proc/self/root/bin/other"}},
		{"from memory", nil, []string{"/bin/other", "memory"}},
		{"allowed one from memory", nil, []string{"/bin/probe", "memory"}},
		{"deleted", steps("/bin/probe copy /bin/probe /tmp/gone"), []string{"/tmp/gone", "deleted"}},
		{"argv[0] of an allowed one", nil, []string{"/bin/other", "as", "/bin/probe"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			for _, argv := range tc.before {
				if out := b.exec(argv...); !strings.HasPrefix(out, "ok: ") {
					t.Fatalf("%v printed %q", argv, out)
				}
			}
			out := b.refused(append(tc.program, get...)...)
			// It tried: what it prints is the probe's word about the connection.
			if !strings.Contains(out, `Get "https://`) && !strings.HasPrefix(out, "ok: HTTP/") {
				t.Errorf("printed %q", out)
			}
		})
	}
	t.Run("overwritten", func(t *testing.T) {
		b := b.at(t)
		must := func(argv ...string) {
			t.Helper()
			if out := b.exec(argv...); !strings.HasPrefix(out, "ok: ") {
				t.Fatalf("%v printed %q", argv, out)
			}
		}
		must("/bin/probe", "copy", "/bin/probe", "/tmp/tool")
		b.allowed(append([]string{"/tmp/tool"}, get...)...)
		must("/bin/probe", "copy", "/bin/probe", "/tmp/tool", "more")
		b.refused(append([]string{"/tmp/tool"}, get...)...)
		b.record("the changed program", func(r decisionlog.Record) bool {
			return r.Verdict == "deny" && strings.Contains(r.Reason, "Binary integrity violation: /tmp/tool hash changed")
		})
		must("/bin/probe", "copy", "/bin/probe", "/tmp/next", "more")
		must("/bin/probe", "rename", "/tmp/next", "/tmp/tool")
		b.refused(append([]string{"/tmp/tool"}, get...)...)
	})
}

// A program is known by every name that leads to it in the image.
func TestAllowedThroughLinks(t *testing.T) {
	t.Parallel()
	b := newIdentityBox(t)
	for _, program := range []string{"/bin/dash", "/bin/shell", "/sbin/tool", "/usr/bin/tool"} {
		t.Run(program, func(t *testing.T) { b.at(t).allowed(append([]string{program}, get...)...) })
	}
	t.Run("child of an allowed program", func(t *testing.T) {
		b.at(t).allowed(append([]string{"/bin/probe", "run", "/bin/other"}, get...)...)
	})
	t.Run("allowed child of another", func(t *testing.T) {
		b.at(t).allowed(append([]string{"/bin/other", "run", "/bin/probe"}, get...)...)
	})
}

// TestBypass_B33_Loader: the dynamic loader is not the program that it loads.
func TestBypass_B33_Loader(t *testing.T) {
	t.Parallel()
	b := newIdentityBox(t)
	curl := []string{"/usr/bin/curl", "-sS", "--max-time", "5", "https://api.test/x"}
	b.up.Reset()
	if out := b.exec(curl...); !strings.HasPrefix(out, "upstream saw GET /x") || len(b.up.Requests()) != 1 {
		t.Fatalf("curl itself printed %q", out)
	}
	loaders, err := filepath.Glob(filepath.Join(b.rootfs, "lib*/ld-linux*"))
	if err != nil || len(loaders) == 0 {
		t.Fatalf("no loader in the image: %v", err)
	}
	loader := strings.TrimPrefix(loaders[0], b.rootfs)
	if out := b.refused(append([]string{loader}, curl...)...); out == "" {
		t.Error("printed nothing")
	}
	b.refused(append(append([]string{loader}, curl...), "--noproxy", "*")...)
}

// TestBypass_B38_PassedSockets: a connection that an allowed program began is
// judged by who holds it when a request comes.
func TestBypass_B38_PassedSockets(t *testing.T) {
	t.Parallel()
	const request = "GET /x HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"
	b := newIdentityBox(t)
	for _, tc := range []struct {
		name    string
		how     string
		to      string
		allowed bool
	}{
		{"inherited by another program", "orphan", "/bin/other", false},
		{"inherited by an allowed one", "orphan", "/bin/shell", true},
		{"given to another program", "give", "/bin/other", false},
		{"shared with another program", "share", "/bin/other", false},
		{"given to an allowed one", "give", "/bin/shell", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			var out string
			if tc.how == "orphan" {
				out = b.exec("/bin/probe", "orphan", tc.to, "api.test:80", request)
			} else {
				at := "/tmp/" + strings.ReplaceAll(tc.name, " ", "-")
				wait := b.start(nil, tc.to, "receive", at, request)
				b.until("the receiver listens", func() bool {
					_, err := os.Lstat(filepath.Join(b.rootfs, at))
					return err == nil
				})
				keep := ""
				if tc.how == "share" {
					keep = "keep"
				}
				if out := b.exec("/bin/probe", "give", at, "api.test:80", request, keep); out != "" {
					t.Errorf("give printed %q", out)
				}
				out = wait()
			}
			if tc.allowed {
				if !strings.Contains(out, "upstream saw GET /x") {
					t.Errorf("printed %q", out)
				}
				return
			}
			if out == "" {
				t.Error("the other program printed nothing")
			}
			b.noRequestArrived([]string{tc.name}, out)
		})
	}
}

// TestBypass_B39_GoneAtOnce: a program that ends before anybody can look is nobody.
func TestBypass_B39_GoneAtOnce(t *testing.T) {
	t.Parallel()
	b := newIdentityBox(t)
	b.refused("/bin/other", "hurry", "30", "api.test:80", "GET /c2VjcmV0 HTTP/1.1\r\nHost: api.test\r\n\r\n")
	b.refused("/bin/other", "hurry", "10", "127.0.0.1:15001", "GET http://api.test/c2VjcmV0 HTTP/1.1\r\nHost: api.test\r\n\r\n")
}

// TestBypass_B39_SamePort: connections from one port to several places are each known
// by the port that they have, not by that which they get when they are led to the
// proxy and have to be told apart.
func TestBypass_B39_SamePort(t *testing.T) {
	t.Parallel()
	b := newIdentityBox(t)
	for _, tc := range []struct {
		name, first string
		env         []string
	}{
		{"to the proxy", "api.test:443", nil},
		{"to the proxy, a name refused before", "denied.test:80", nil},
		{"led to the proxy", "192.0.2.7:443", []string{"HTTP_PROXY=", "http_proxy="}},
		{"led to the proxy, another port before", "api.test:443", []string{"HTTP_PROXY=", "http_proxy="}},
		{"led to the proxy, to which there is one", "127.0.0.1:15001", []string{"HTTP_PROXY=", "http_proxy="}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b.at(t)
			b.up.Reset()
			for who, want := range map[string]string{"/bin/probe": "upstream saw GET /x", "/bin/other": "not permitted by policy"} {
				if out := b.execEnv(tc.env, who, "sameport", tc.first, "GET", "http://api.test/x"); !strings.Contains(out, want) {
					t.Errorf("%s printed %q", who, out)
				}
			}
			if got := b.up.Requests(); len(got) != 1 {
				t.Errorf("the upstream saw %v", got)
			}
		})
	}
}

// TestBypass_B37_B52_ProgramsOfTheHost: a workload that catches the runtime's programs
// while they run in its container cannot write to them. It cannot trace them either, where
// it can trace its own children: launch is not confined yet when it starts.
func TestBypass_B37_B52_ProgramsOfTheHost(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]string{"programs are named": identityPolicy, "tracing": openPolicy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			besiege(t, newBox(t, boxOptions{policy: policy}))
		})
	}
}

// besiege starts programs in the box until a siege there has seen enough of them.
func besiege(t *testing.T, b *box) {
	t.Helper()
	soFar, wait := b.watch(nil, "/bin/probe", "siege", "8")
	for end := time.Now().Add(runTimeout); soFar() == "" && time.Now().Before(end); {
		b.exec("/bin/probe", "read", "/etc/hosts")
	}
	if out := wait(); !strings.HasPrefix(out, "ok: 0 opened, 0 traced of ") {
		t.Errorf("printed %q", out)
	}
}
