// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/integration/fakeapi"
	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/testenv"
)

// agentTimeout limits one task of an agent. Agents start slowly, and first make several
// requests to their vendors.
const agentTimeout = 4 * time.Minute

// agentProject is where an agent works, in the sandbox.
const agentProject = "/project"

// npmPrograms is the folder that scripts/agents.sh makes of a kind.
func npmPrograms(t *testing.T, kind string) string {
	t.Helper()
	cmd := exec.Command("../scripts/agents.sh", kind)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		// npm's own words name the registry.
		testenv.Lacks(t, testenv.Registries, fmt.Errorf("scripts/agents.sh %s: %w", kind, err))
	}
	return strings.TrimSpace(string(out))
}

// agentWorld is a Debian with programs from npm, a project with a task in it, and
// the APIs of hosts.
type agentWorld struct {
	*world
	api *fakeapi.Server
	up  *upstream.Host
	// name is the sandbox's, secret what only the project's file holds, real the
	// key.
	name, secret, real string
	run                []string
}

func newAgentWorld(t *testing.T, kind, policy string, hosts ...string) *agentWorld {
	t.Helper()
	rootfs, local := debian(t), npmPrograms(t, kind)
	w := &agentWorld{world: newWorld(t, policy), real: "sk-real-" + random(t), secret: random(t), name: "agent-" + random(t)}
	w.rootfs = rootfs
	project := filepath.Join(w.dir, "project")
	if err := os.Mkdir(project, 0o755); err != nil {
		t.Fatal(err)
	}
	w.file("project/note.txt", "The word is "+fakeapi.Word+w.secret+".\n")
	var err error
	if w.up, err = upstream.Open(hosts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.up.Close() })
	w.api = &fakeapi.Server{Key: w.real, File: agentProject + "/note.txt"}
	w.up.Handler = w.api
	ca := filepath.Join(w.dir, "upstream.pem")
	if err := w.up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	w.run = []string{
		"run", "--root", w.state(), "--rootfs", w.rootfs, "--policy", w.policy, "--config", w.config, "--name", w.name,
		"--upstream-ca", ca, "-v", local + ":/usr/local:ro", "-v", project + ":" + agentProject, "-w", agentProject,
	}
	for _, h := range hosts {
		w.run = append(w.run, "--add-host", h+":"+w.up.Addr.String())
	}
	return w
}

func random(t *testing.T) string {
	t.Helper()
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// provide stores the real key as the operator's provider, which takes it from a
// variable.
func (w *agentWorld) provide(profile, variable string) {
	w.t.Helper()
	store := filepath.Join(w.dir, "providers")
	w.openshell([]string{variable + "=" + w.real}, "provider", "create", "theirs", "--type", profile, "--from-existing", "--store", store)
	w.configure("providers_dir: " + store)
}

// routed has the router lead to an API with the provider's key.
func (w *agentWorld) routed(dialect, base, model string) {
	w.t.Helper()
	file := filepath.Join(w.dir, "inference.yaml")
	args := []string{"inference", "set", "main", "--dialect", dialect, "--base-url", base, "--provider", "theirs", "--file", file, "--store", filepath.Join(w.dir, "providers")}
	if model != "" {
		args = append(args, "--model", model)
	}
	w.openshell(nil, args...)
	w.configure("inference_file: " + file)
}

func (w *agentWorld) configure(line string) {
	w.t.Helper()
	text, err := os.ReadFile(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.file(filepath.Base(w.config), string(text)+line+"\n")
}

// openshell runs one of the person's commands, with an environment of its own.
func (w *agentWorld) openshell(env []string, args ...string) {
	w.t.Helper()
	cmd := exec.Command(filepath.Join(built.bin, "openshell"), args...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), w.real) {
		w.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// do runs argv in the sandbox; flags are more of `openshell run`'s.
func (w *agentWorld) do(flags []string, argv ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), agentTimeout)
	defer cancel()
	args := append(append(append([]string{}, w.run...), flags...), "--")
	cmd := exec.CommandContext(ctx, filepath.Join(built.bin, "openshell"), append(args, argv...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// note is the project's file.
func (w *agentWorld) note() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "project/note.txt"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// keysOnly fails unless every request that arrived had the real key, and none had a
// placeholder in its path, query or header. In bodies placeholders pass.
func (w *agentWorld) keysOnly() {
	w.t.Helper()
	for _, h := range w.api.Heard() {
		if h.Key() != w.real {
			w.t.Errorf("%s %s%s arrived with the key %q", h.Method, h.Host, h.Path, h.Key())
		}
		head := h
		head.Body = nil
		for _, text := range []string{"openshell:resolve:env:", "OPENSHELL-RESOLVE-ENV-"} {
			if head.Holds(text) {
				w.t.Errorf("%s %s%s arrived with %s in it", h.Method, h.Host, h.Path, text)
			}
		}
	}
}

// told fails unless a model that looked around saw the placeholder in the environment.
func (w *agentWorld) told() {
	w.t.Helper()
	for _, h := range w.api.Heard() {
		// Not every agent's tools show the environment.
		if h.Holds("GIT_SSL_CAINFO") && !h.Holds("openshell:resolve:env:") {
			w.t.Error("the model saw the environment without the placeholder")
		}
	}
}

// explain logs what was asked and decided, for a test that failed.
func (w *agentWorld) explain(out string) {
	w.t.Helper()
	if !w.t.Failed() {
		return
	}
	const most = 300
	for _, h := range w.api.Heard() {
		w.t.Logf("%d %s %s%s %s", h.Answered, h.Method, h.Host, h.Path, h.Body[:min(len(h.Body), most)])
	}
	for _, r := range readRecords(w.t, filepath.Join(w.records(), w.name)) {
		w.t.Logf("%s %s %s %s%s by %s: %s", r.Verdict, r.Layer, r.Method, r.Host, r.Path, r.Binary, r.Reason)
	}
	w.t.Log(strings.ReplaceAll(out, w.real, "REAL-KEY"))
}
