// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.dev/runtime/integration/fakeapi"
	"openshell.dev/runtime/internal/testenv"
)

// agent is a program from npm that does a task with a model, told once on its
// command line.
type agent struct {
	name string
	argv []string
	// hosts are those of its API; paths where its requests may arrive.
	hosts, paths []string
	// variable has the key on the operator's side; profile is the provider's.
	variable, profile string
	// router is the same agent led to inference.local.
	router agentRoute
}

// agentRoute is what differs where the router has the key.
type agentRoute struct {
	argv, env, paths []string
	// dialect, base and model are the route's, profile and variable its provider's.
	dialect, base, model, profile, variable string
}

const agentTask = "Change the word in note.txt."

var agents = []agent{
	{
		name: "claude-code", argv: []string{"claude", "--print", "--allowedTools", "Bash", "--", agentTask},
		hosts: []string{"api.anthropic.com"}, paths: []string{"/v1/messages"}, variable: "ANTHROPIC_API_KEY", profile: "claude-code",
		router: agentRoute{
			argv: []string{"claude", "--print", "--dangerously-skip-permissions", agentTask}, env: []string{"IS_SANDBOX=1"},
			dialect: "anthropic", base: "https://api.anthropic.com", profile: "anthropic", variable: "ANTHROPIC_API_KEY",
		},
	},
	{
		name: "codex", argv: []string{"codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--model", "gpt-5.1-codex", agentTask},
		hosts: []string{"api.openai.com"}, paths: []string{"/v1/responses"}, variable: "OPENAI_API_KEY", profile: "codex",
		router: agentRoute{
			argv:    []string{"codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--model", "gpt-5.1-codex", "--config", "model_provider=api", "--config", `model_providers.api={name="OpenAI", base_url="https://inference.local/v1", env_key="OPENAI_API_KEY", wire_api="responses"}`, agentTask},
			dialect: "openai", base: "https://api.openai.com/v1", profile: "openai", variable: "OPENAI_API_KEY",
		},
	},
	{
		name: "opencode", argv: []string{"opencode", "run", "--model", "openai/gpt-5", agentTask},
		hosts: []string{"api.openai.com"}, paths: []string{"/v1/responses"}, variable: "OPENAI_API_KEY", profile: "opencode",
		router: agentRoute{dialect: "openai", base: "https://api.openai.com/v1", profile: "openai", variable: "OPENAI_API_KEY"},
	},
	{
		name: "copilot", argv: []string{"copilot", "--model", "gpt-5.4", "--allow-all-tools", "--prompt", agentTask},
		hosts: []string{"api.githubcopilot.com", "api.github.com"}, variable: "COPILOT_GITHUB_TOKEN", profile: "copilot",
		paths: []string{"/chat/completions", "/models", "/copilot_internal/user"},
		router: agentRoute{
			paths:   []string{"/v1/chat/completions"},
			dialect: "openai", base: "https://api.openai.com/v1", model: "gpt-5.4", profile: "openai", variable: "OPENAI_API_KEY",
		},
	},
	{
		name: "gemini", argv: []string{"gemini", "--model", "gemini-2.5-pro", "--yolo", "--skip-trust", "--prompt", agentTask},
		hosts: []string{"generativelanguage.googleapis.com"}, variable: "GEMINI_API_KEY", profile: "gemini",
		paths: []string{"/v1beta/models/gemini-2.5-pro:streamGenerateContent"},
		router: agentRoute{
			// 0.61.0 refuses the kind of key that it takes by itself with a base URL.
			argv: []string{
				"sh", "-c", `mkdir -p ~/.gemini && echo '{"security": {"auth": {"selectedType": "gemini-api-key"}}}' >~/.gemini/settings.json && exec "$@"`, "sh",
				"gemini", "--model", "gemini-2.5-pro", "--yolo", "--skip-trust", "--prompt", agentTask,
			},
			dialect: "gemini", base: "https://generativelanguage.googleapis.com", profile: "gemini", variable: "GEMINI_API_KEY",
		},
	},
}

// TestBypass_B63_B64_Agents: agents as npm installs them do a task, and the key is
// nowhere in their sandbox while they do: neither where the proxy puts it into
// their requests, nor where the router has it.
func TestBypass_B63_B64_Agents(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Debian, testenv.Agents)
	for _, a := range agents {
		t.Run(a.name, func(t *testing.T) {
			policy, err := os.ReadFile(filepath.Join("../docs/policies", a.name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			t.Run("provider", func(t *testing.T) {
				w := newAgentWorld(t, "agents", string(policy), a.hosts...)
				w.provide(a.profile, a.variable)
				w.run = append(w.run, "--provider", "theirs")
				w.task(a.argv, nil, a.paths, "placeholder")
			})
			t.Run("router", func(t *testing.T) {
				// The same files, and no network.
				files, _, found := strings.Cut(string(policy), "\nnetwork_policies:")
				if !found {
					t.Fatal("the policy has no network_policies")
				}
				r := a.router
				if r.argv == nil {
					r.argv = a.argv
				}
				if r.paths == nil {
					r.paths = a.paths
				}
				host, _, _ := strings.Cut(strings.TrimPrefix(r.base, "https://"), "/")
				w := newAgentWorld(t, "agents", files+"\nnetwork_policies: {}\n", host)
				w.provide(r.profile, r.variable)
				w.routed(r.dialect, r.base, r.model)
				w.task(r.argv, r.env, r.paths, "router")
			})
		})
	}
}

// task has an agent do its task. In the place of the key it has what stand names.
func (w *agentWorld) task(argv, env, paths []string, stand string) {
	t := w.t
	t.Helper()
	var found *search
	w.api.Last = func() { found = w.searched() }
	var flags []string
	for _, e := range env {
		flags = append(flags, "-e", e)
	}
	out, err := w.do(flags, argv...)
	defer w.explain(out)
	if want := fakeapi.Edited + w.secret; err != nil || !strings.Contains(w.note(), want) {
		t.Errorf("%v; note.txt is %q, want …%s…", err, w.note(), want)
	}
	if strings.Contains(out, w.real) {
		t.Error("the agent printed the key")
	}
	w.keysOnly()
	if stand == "placeholder" {
		w.told()
	}
	for _, h := range w.api.Heard() {
		if !slices.Contains(paths, h.Path) {
			t.Errorf("%s %s%s arrived", h.Method, h.Host, h.Path)
		}
	}
	if found == nil {
		t.Fatal("the model never came to the end of the task")
	}
	if found.err != nil {
		t.Error(found.err)
	}
	if where := found.found["key"]; len(where) > 0 {
		t.Errorf("the key is in %q", where)
	}
	// Controls: a search that finds nothing proves nothing.
	for _, c := range []struct{ text, kind string }{{stand, inEnvironment}, {stand, inMemory}, {"secret", inMemory}, {"secret", inFile}} {
		if !found.has(c.text, c.kind) {
			t.Errorf("the search did not find %s in any %s", c.text, c.kind)
		}
	}
	t.Logf("searched %d processes, %d MiB of memory, %d MiB of files", found.processes, found.resident>>20, found.files>>20)
}
