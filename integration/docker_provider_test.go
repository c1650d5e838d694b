// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/runtime/integration/middleware"
)

const moreProfile = `id: moreapi
credentials: [{name: api_key, env_vars: [MORE_API_KEY], auth_style: header, header_name: x-api-key}]
endpoints: [{host: plain.test, port: 443}]
`

// TestDockerProvider: an agent that is not root has the provider of its runtime, and one
// that is attached later; where Docker has annotations (API 1.43), one names another. What
// a middleware refuses is not run.
func TestDockerProvider(t *testing.T) {
	policy := strings.Replace(providerPolicy, "read_only: [/bin, /etc, /proc]", "read_only: [/]", 1)
	w := newWorld(t, policy)
	ca := filepath.Join(w.dir, "upstream.pem")
	guarded := policy + "network_middlewares: {guard: {middleware: local-guard, endpoints: {include: [api.test]}}}\n"
	e := startDocker(t, map[string]string{"openshell": policy, "guarded": guarded}, "--upstream-ca", ca, "--provider", "work")
	e.importImage("probe", w.rootfs)
	h := &heard{}
	up := e.upstream("api.test", "plain.test")
	up.Handler = h
	if err := up.WriteCA(ca); err != nil {
		t.Fatal(err)
	}
	store, operator := filepath.Join(e.dir, "providers"), filepath.Join(e.dir, "operator.yaml")
	provider := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(built.bin, "openshell"), append([]string{"provider"}, args...)...)
		cmd.Env = []string{"TEST_API_KEY=" + realKey, "MORE_API_KEY=" + nextKey}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), realKey) || strings.Contains(string(out), nextKey) {
			t.Fatalf("provider %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	provider("profile", "import", e.write("test.yaml", testProfile), "--store", store)
	provider("profile", "import", e.write("more.yaml", moreProfile), "--store", store)
	provider("create", "work", "--type", "testapi", "--from-existing", "--store", store)
	provider("create", "more", "--type", "moreapi", "--from-existing", "--store", store)
	text, err := os.ReadFile(operator)
	if err == nil {
		service := fmt.Sprintf("middlewares: [{name: local-guard, grpc_endpoint: \"http://host.docker.internal:%d\", allow_insecure_transport: true, max_body_bytes: 65536}]\n", e.refuses())
		err = os.WriteFile(operator, fmt.Appendf(text, "providers_dir: %s\nannotation_providers: true\n%s", store, service), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}

	run := []string{"--user", "1000:1000", "--add-host", "api.test:" + up.Addr.String(), "--add-host", "plain.test:" + up.Addr.String(), "-e", "TEST_API_KEY=" + imageKey}
	e.must(append(append([]string{"run", "--detach", "--name", "box", "--runtime", "openshell"}, run...), "probe", "/bin/probe", "stay", "300s")...)
	inside := func(argv ...string) string {
		out, _ := e.docker(append([]string{"exec", "box", "/bin/probe"}, argv...)...)
		return out
	}
	arrives := func(url, variable, key string) {
		t.Helper()
		h.take()
		out := inside("keyed", "GET", url, "X-Api-Key:"+variable)
		if got := h.take(); !strings.Contains(got, "x-api-key="+key+" ") || strings.Contains(out, key) {
			t.Errorf("the API heard %q, want %s; the sandbox %q", got, key, out)
		}
	}
	if out := inside("self"); !strings.HasPrefix(out, "ok: uid=1000 gid=1000 ") || !strings.Contains(out, " TEST_API_KEY=openshell:resolve:env:TEST_API_KEY") || strings.Contains(out, "MORE_API_KEY") {
		t.Errorf("the exec is %s", out)
	}
	arrives("https://api.test/v1", "$TEST_API_KEY", realKey)

	id := e.must("inspect", "--format", "{{.Id}}", "box")
	root := filepath.Join(e.run, "exec/runtime-runc/moby")
	out := provider("attach", id[:12], "more", "--root", root, "--config", operator, "--store", store)
	if !strings.Contains(out, "\n  MORE_API_KEY=openshell:resolve:env:MORE_API_KEY\n") {
		t.Errorf("attach: %s", out)
	}
	arrives("https://plain.test/v1", "$MORE_API_KEY", nextKey)
	arrives("https://api.test/v1", "$TEST_API_KEY", realKey)
	provider("detach", id[:12], "more", "--root", root)
	if out := inside("keyed", "GET", "https://plain.test/v1", "X-Api-Key:$MORE_API_KEY"); !strings.Contains(out, "its provider more was detached") || h.take() != "" {
		t.Errorf("after detaching: %s", out)
	}
	if out := inside("search", hex.EncodeToString([]byte(realKey)), hex.EncodeToString([]byte(nextKey))); out != "ok: found" {
		t.Errorf("a key, or a socket, is in sight: %s", out)
	}
	e.must("rm", "--force", "box")

	// In the container's own network, too, a service is asked before anything runs.
	out, status := e.sandbox("guarded", append(run, "probe", "/bin/probe", "self")...)
	if status != 125 || !strings.Contains(out, "network_middlewares.guard.config (line ") || strings.Contains(out, "uid=") {
		t.Errorf("a config that is refused: status %d, %s", status, out)
	}

	var major, minor int
	if _, err := fmt.Sscanf(e.must("version", "--format", "{{.Server.APIVersion}}"), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	out, _ = e.sandbox("openshell", append(append([]string{"--annotation", "openshell.dev/providers=more"}, run...), "probe", "/bin/probe", "keyed", "GET", "https://plain.test/v1", "X-Api-Key:$MORE_API_KEY")...)
	if got := h.take(); major == 1 && minor < 43 {
		if !strings.Contains(out, "API version 1.43") {
			t.Errorf("an annotation: %s", out)
		}
	} else if !strings.Contains(got, "x-api-key="+nextKey+" ") {
		t.Errorf("the API heard %q; the sandbox %q", got, out)
	}
	e.nothingRemains()
}

// refuses serves a middleware, where Docker's containers find the host, that refuses
// every config, and says at which port.
func (e *engine) refuses() int {
	e.t.Helper()
	var l net.Listener
	e.within(func() (err error) {
		l, err = net.Listen("tcp4", ":0")
		return err
	})
	service := &middleware.Service{Validate: func(map[string]any) (bool, string) { return false, "no" }}
	server, err := service.Serve(l)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(server.Stop)
	return l.Addr().(*net.TCPAddr).Port
}
