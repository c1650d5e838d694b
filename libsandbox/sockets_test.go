// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestRelativeSockets: a socket that a program has bound by a relative name is found by the
// program's working directory. If the program has changed its directory, there is a
// warning.
func TestRelativeSockets(t *testing.T) {
	if name := os.Getenv("BIND_RELATIVE"); name != "" { // the program
		if _, err := net.Listen("unix", name); err != nil {
			t.Fatal(err)
		}
		t.Chdir(os.Getenv("BIND_LEAVE"))
		fmt.Println("bound")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	for _, tc := range []struct {
		name, mount, leave string
		recorded, warned   int
	}{
		{"mounted", "/srv/app", ".", 1, 0},
		{"mounted above", "/srv", ".", 1, 0},
		{"another folder", "/srv/other", ".", 0, 0},
		{"another folder, and the program is elsewhere", "/srv/other", "/", 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inMounts(t, func() {
				must(t, os.MkdirAll("/srv/app/run", 0o755), os.MkdirAll("/srv/other", 0o755), os.MkdirAll("/run/root", 0o755))
				program := exec.Command("/proc/self/exe", "-test.run=^TestRelativeSockets$")
				program.Dir, program.Env = "/srv/app", append(os.Environ(), "BIND_RELATIVE=run/sock", "BIND_LEAVE="+tc.leave)
				in, err := program.StdinPipe()
				must(t, err)
				out, err := program.StdoutPipe()
				must(t, err, program.Start())
				defer func() {
					_ = in.Close()
					_ = program.Wait()
				}()
				if line, err := bufio.NewReader(out).ReadString('\n'); line != "bound\n" {
					t.Errorf("the program said %q, %v", line, err)
					return
				}
				checked, err := checkMountSources(specOf("/run/root", tc.mount), nil, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer checked.close()
				lost := slices.DeleteFunc(slices.Clone(checked.warnings), func(w string) bool { return !strings.Contains(w, `"run/sock"`) })
				if len(checked.sockets) != tc.recorded || len(lost) != tc.warned {
					t.Errorf("recorded %q, warned %q", checked.sockets, checked.warnings)
				}
			})
		})
	}
}

// TestControlSocketsCauseNoWarning: the sockets of other sandboxes' guards and runtimes,
// which are bound through a descriptor, cause no warning.
func TestControlSocketsCauseNoWarning(t *testing.T) {
	for name, want := range map[string]bool{
		"/proc/self/fd/9/control.sock": true, "/proc/self/fd/21/secrets.sock": true, "/proc/self/fd/7/notify.sock": true,
		"/proc/self/fd/9/docker.sock": false, "/run/control.sock": false, "control.sock": false, "/proc/self/fd/9/x/control.sock": false,
	} {
		if got := isControlSocket(boundSocket{name: name}); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
