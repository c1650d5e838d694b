// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
)

// detached starts the sleeping bundle under a name of its own.
func (w *world) detached(name string) (id string) {
	w.t.Helper()
	id = fmt.Sprintf("%s-%d", name, os.Getpid())
	bundle := w.bundle()
	w.t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	if out, err := w.runtime("run", "--detach", "--bundle", bundle, id); err != nil {
		w.t.Fatalf("run: %v: %s", err, out)
	}
	return id
}

// What update writes is what the kernel then counts against, and what events
// reports.
func TestUpdateAndEvents(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := w.detached("update")
	limit := func() (n uint64) {
		t.Helper()
		out, err := w.runtime("events", "--stats", id)
		var e struct {
			Type, ID string
			Data     struct{ Pids struct{ Limit uint64 } }
		}
		if err != nil || json.Unmarshal([]byte(out), &e) != nil || e.Type != "stats" || e.ID != id {
			t.Fatalf("events --stats: %v: %s", err, out)
		}
		return e.Data.Pids.Limit
	}
	if n := limit(); n != 0 {
		t.Fatalf("the limit of processes is %d before any was set", n)
	}
	file := filepath.Join(w.dir, "resources.json")
	if err := os.WriteFile(file, []byte(`{"pids": {"limit": 43}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want uint64
	}{
		{[]string{"update", id, "--pids-limit", "41"}, 41},
		{[]string{"update", "--pids-limit=42", id}, 42},
		{[]string{"update", "--resources", file, id}, 43},
	} {
		if out, err := w.runtime(tc.args...); err != nil {
			t.Errorf("%v: %v: %s", tc.args, err, out)
		}
		if n := limit(); n != tc.want {
			t.Errorf("%v: the limit is %d, want %d", tc.args, n, tc.want)
		}
	}
	if out, err := w.runtime("update", "--memory", "lots", id); err == nil || !strings.Contains(out, "invalid value for memory") {
		t.Errorf("update --memory lots: %v: %s", err, out)
	}
	if n := limit(); n != 43 {
		t.Errorf("a refused update changed the limit to %d", n)
	}
	// A container that update has touched is still a sandbox.
	if out, _ := w.runtime("exec", id, "/bin/probe", "read", "/secret/key"); !strings.HasPrefix(out, "error: EACCES") {
		t.Errorf("exec after update printed %q", out)
	}
}

// A sandbox is not saved, whatever became of its state, nor is one restored.
func TestCheckpointOfSandboxIsRefused(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := w.detached("criu")
	refused := func(name string, args ...string) {
		t.Helper()
		out, err := w.runtime(args...)
		if err == nil || !strings.Contains(out, "criu does not restore Landlock domains") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	images := filepath.Join(w.dir, "images")
	refused("checkpoint", "checkpoint", "--image-path", images, id)
	refused("restore", "restore", "--image-path", images, "--bundle", filepath.Join(w.dir, "bundle"), id+"-restored")
	if out, err := w.runtime("state", id+"-restored"); err == nil {
		t.Errorf("a refused restore left a container: %s", out)
	}
	ours := filepath.Join(w.dir, "state", "@sandbox", id)
	// The worker writes the first policy into ours when it starts, and would make the folder.
	w.until("the proxy's worker has started", func() bool {
		_, err := os.Stat(filepath.Join(ours, proxyapi.PoliciesDir, "index.json"))
		return err == nil
	})
	if err := os.Rename(ours, ours+".away"); err != nil {
		t.Fatal(err)
	}
	refused("checkpoint without our state", "checkpoint", "--image-path", images, id)
	if err := os.Rename(ours+".away", ours); err != nil { // or delete does not wait for the guard
		t.Fatal(err)
	}
}

// No flag of exec gives a sandboxed process what its plan has taken.
func TestBypass_B40_ExecFlags(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := w.detached("flags")
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{"capability", []string{"--cap", "CAP_SYS_ADMIN", "--cap", "CAP_NET_RAW"}},
		{"new privileges", []string{"--no-new-privs=false"}},
	} {
		args := append(append([]string{"exec"}, tc.flags...), id, "/bin/probe", "status")
		out, err := w.runtime(args...)
		if err != nil || !strings.Contains(out, "CapBnd:\t0000000000000000 ") || !strings.Contains(out, "CapEff:\t0000000000000000 ") || !strings.Contains(out, "NoNewPrivs:\t1 ") {
			t.Errorf("%s: %v: %s", tc.name, err, out)
		}
	}
	// The control: a capability that no policy takes is given.
	out, err := w.runtime("exec", "--cap", "CAP_KILL", id, "/bin/probe", "status")
	if err != nil || !strings.Contains(out, "CapEff:\t0000000000000020 ") {
		t.Errorf("exec --cap CAP_KILL: %v: %s", err, out)
	}
}

func TestPausedExec(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := w.detached("paused")
	if out, err := w.runtime("pause", id); err != nil {
		t.Fatalf("pause: %v: %s", err, out)
	}
	if out, err := w.runtime("exec", id, "/bin/probe", "fds"); err == nil || !strings.Contains(out, "cannot exec in a paused container") {
		t.Errorf("exec in a paused container: %v: %s", err, out)
	}
	if out, status := w.command("exec", "--root", w.state(), id, "/bin/probe", "fds"); status != 1 || !strings.Contains(out, "is paused") || !strings.Contains(out, "--root "+w.state()+" resume "+id) {
		t.Errorf("openshell exec in a paused container: status %d: %s", status, out)
	}
	if out, err := w.runtime("resume", id); err != nil {
		t.Errorf("resume: %v: %s", err, out)
	}
	if out, err := w.runtime("exec", id, "/bin/probe", "fds"); err != nil {
		t.Errorf("exec in a resumed container: %v: %s", err, out)
	}
}

// state, list and ps in runc's shapes.
func TestReports(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := w.detached("report")
	out, err := w.runtime("state", id)
	var state map[string]any
	if err != nil || json.Unmarshal([]byte(out), &state) != nil {
		t.Fatalf("state: %v: %s", err, out)
	}
	for _, key := range []string{"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"} {
		if _, ok := state[key]; !ok {
			t.Errorf("state has no %s: %s", key, out)
		}
	}
	out, err = w.runtime("list", "--format", "json")
	var list []struct {
		ID, Owner, Rootfs string
		Pid               int
	}
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0].ID != id || list[0].Owner != "root" || list[0].Rootfs != w.rootfs {
		t.Fatalf("list: %v: %s", err, out)
	}
	if out, err := w.runtime("ps", "-f", "json", id); err != nil || out != fmt.Sprintf("[%d]", list[0].Pid) {
		t.Errorf("ps -f json: %v: %s, want [%d]", err, out, list[0].Pid)
	}
	out, err = w.runtime("ps", id, "-e", "-o", "comm,pid")
	lines := strings.Split(out, "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], "PID") || !strings.HasSuffix(lines[1], strconv.Itoa(list[0].Pid)) {
		t.Errorf("ps with options: %v: %s", err, out)
	}
}

// With --log-format json every line is JSON, libcontainer's own and those of its
// processes included.
func TestDebugLogIsJSON(t *testing.T) {
	w := newWorld(t, testPolicy)
	id := fmt.Sprintf("log-%d", os.Getpid())
	log := filepath.Join(w.dir, "runtime.log")
	bundle := w.bundle()
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	if out, err := w.runtime("--debug", "--log", log, "--log-format", "json", "create", "--bundle", bundle, id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	if out, err := w.runtime("--log", log, "--log-format", "json", "start", "missing"); err == nil {
		t.Fatalf("start of a missing container: %s", out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	levels := map[string]int{}
	for _, l := range lines {
		var line struct{ Level, Msg, Time string }
		if err := json.Unmarshal([]byte(l), &line); err != nil || line.Msg == "" || line.Time == "" {
			t.Errorf("%v: %s", err, l)
		}
		levels[line.Level]++
	}
	if levels["debug"] == 0 || levels["error"] != 1 || levels["warning"] != 0 {
		t.Errorf("levels %v", levels)
	}
}

// A container says READY to the manager of the runtime, and nothing else.
func TestNotifySocket(t *testing.T) {
	w := newWorld(t, testPolicy)
	manager := filepath.Join(w.dir, "manager.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bundle := w.bundle()
	file := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`["/bin/probe", "sleep", "60s"]`), []byte(`["/bin/probe", "notify", "MAINPID=1", "READY=1\nSTATUS=x"]`), 1)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", manager)
	id := fmt.Sprintf("notify-%d", os.Getpid())
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", id) })
	pid := filepath.Join(w.dir, "pid")
	done := make(chan error, 1)
	go func() { done <- read(conn, 3, &text) }()
	if out, err := w.runtime("run", "--detach", "--bundle", bundle, "--pid-file", pid, id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	number, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("READY=1\nMAINPID=%s\nBARRIER=1", number); string(text) != want {
		t.Errorf("the manager received %q, want %q", text, want)
	}
}

// read puts the next messages of conn together in *out, and closes what
// descriptors come with them, as systemd does.
func read(conn *net.UnixConn, messages int, out *[]byte) error {
	if err := conn.SetReadDeadline(time.Now().Add(runTimeout)); err != nil {
		return err
	}
	*out = nil
	for range messages {
		data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, m, _, _, err := conn.ReadMsgUnix(data, oob)
		if err != nil {
			return err
		}
		*out = append(*out, data[:n]...)
		if msgs, err := unix.ParseSocketControlMessage(oob[:m]); err == nil && len(msgs) == 1 {
			fds, err := unix.ParseUnixRights(&msgs[0])
			if err != nil {
				return err
			}
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	}
	return nil
}
