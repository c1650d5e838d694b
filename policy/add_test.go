// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// nemoClaw is a preset in NemoClaw's format.
const nemoClaw = `# A preset.
preset:
  name: tracker
  description: "The tracker's API"

network_policies:
  tracker:
    name: tracker
    endpoints:
      - host: tracker.example.com
        port: 443
        protocol: rest
        enforcement: enforce
        tls: terminate
        rules:
          - allow: { method: GET, path: "/api/**" }
    binaries:
      - { path: /usr/bin/curl }
`

// TestAddPreset adds a NemoClaw preset to a policy and checks that the result allows what
// either of them allows.
func TestAddPreset(t *testing.T) {
	const own = "version: 1 # mine\nfilesystem_policy: {read_write: [/work]}\n"
	for _, network := range []string{
		"", "network_policies: {}\n", "network_policies:\n",
		"network_policies:\n  own: {endpoints: [{host: own.example.com, port: 443}], binaries: [/usr/bin/curl]}\n",
		"network_policies:\n  tracker: {name: tracker, endpoints: [{host: tracker.example.com, port: 443, protocol: rest, enforcement: enforce, tls: terminate, rules: [{allow: {method: GET, path: /api/**}}]}], binaries: [{path: /usr/bin/curl}]}\n",
	} {
		text, err := Add(Document{"own.yaml", []byte(own + network)}, Document{"tracker.yaml", []byte(nemoClaw)})
		if err != nil {
			t.Errorf("%q: %v", network, err)
			continue
		}
		p, err := Parse("both.yaml", text)
		if err != nil {
			t.Errorf("%q: %v in\n%s", network, err, text)
			continue
		}
		if d := cmp.Diff([]string{"/work"}, p.Filesystem.ReadWrite); d != "" {
			t.Errorf("%q: %s", network, d)
		}
		e, err := Compile(p, CompileOptions{})
		if err != nil {
			t.Errorf("%q: %v", network, err)
			continue
		}
		ask := func(host, method, path string) Verdict {
			return e.Decide(&Request{Host: host, Port: 443, Binary: "/usr/bin/curl", HTTP: &HTTP{Method: method, Path: path}}).Verdict
		}
		owns := len(network) > 30 && network[20:23] == "own"
		if get, post, self := ask("tracker.example.com", "GET", "/api/x"), ask("tracker.example.com", "POST", "/api/x"), ask("own.example.com", "GET", "/"); get != Allow || post != Deny || (self == Allow) != owns {
			t.Errorf("%q: GET %v, POST %v, own %v in\n%s", network, get, post, self, text)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	const base = "version: 1\nnetwork_policies:\n  tracker: {endpoints: [{host: tracker.example.com, port: 80}]}\n"
	for _, tc := range []struct{ name, base, addition, want string }{
		{"no policy", "preset: {}\n", nemoClaw, "own.yaml:1:9: a file with preset is an addition to a policy, not a policy (openshell policy add POLICY FILE joins the two)"},
		{"no addition", base, "version: 1\nprocess: {}\n", "more.yaml:2:10: process cannot be added to a policy (an addition has network_policies alone)"},
		{"static sections", base, "preset: {}\nfilesystem_policy: {read_write: [/]}\nlandlock:\nnetwork_middlewares: {}\n", "more.yaml:2:20: filesystem_policy cannot be added to a policy (an addition has network_policies alone)\nmore.yaml:3:10: landlock cannot be added to a policy (an addition has network_policies alone)\nmore.yaml:4:22: network_middlewares cannot be added to a policy (an addition has network_policies alone)"},
		{"unknown field", base, "presets: {}\n", `more.yaml:1:1: unknown field "presets" in addition (did you mean "preset"?)`},
		{"unknown field of preset", base, "preset: {nam: x}\n", `more.yaml:1:10: unknown field "nam" in preset (did you mean "name"?)`},
		{"name that is a list", base, "preset: {name: []}\n", "more.yaml:1:16: preset.name must be a string"},
		{"invalid entry", base, "network_policies: {a: {endpoint: []}}\n", `more.yaml:1:24: unknown field "endpoint" in network_policies.a (did you mean "endpoints"?)`},
		{"reserved key", base, "network_policies: {_provider_a: {}}\n", `more.yaml:1:20: rule keys that begin with "_provider_" are reserved (choose another key for _provider_a)`},
		{"same key", base, nemoClaw, "more.yaml:7:3: the policy has another network_policies.tracker (give one of them another key)"},
		{"a list of another length", base, "network_policies: {tracker: {endpoints: []}}\n", "more.yaml:1:20: the policy has another network_policies.tracker (give one of them another key)"},
		{"contradiction", base, "network_policies: {a: {endpoints: [{host: tracker.example.com, port: 80, tls: skip}]}}\n", "own.yaml + more.yaml:3:25: network policies 'a' endpoint[0] (tracker.example.com:80) and 'tracker' endpoint[0] (tracker.example.com:80) overlap on port(s) 80 with conflicting metadata: tls=\"skip\" vs \"auto\" (the other is in line 4)"},
	} {
		_, err := Add(Document{"own.yaml", []byte(tc.base)}, Document{"more.yaml", []byte(tc.addition)})
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		} else if d := cmp.Diff(tc.want, err.Error()); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// FuzzAdd checks that the result of Add is a valid policy with every entry of both
// documents.
func FuzzAdd(f *testing.F) {
	f.Add([]byte("version: 1\n"), []byte(nemoClaw))
	f.Add([]byte("version: 1\nnetwork_policies: {a: {}}\n"), []byte("network_policies:\n  ? b\n  : {name: '*'}\n"))
	f.Add([]byte("version: 1\nnetwork_policies: # none\n"), []byte("---\npreset: {name: |\n  x}\n"))
	f.Fuzz(func(t *testing.T, base, addition []byte) {
		text, err := Add(Document{"base", base}, Document{"addition", addition})
		if err != nil {
			return
		}
		p, err := Parse("result", text)
		if err != nil {
			t.Fatalf("%q + %q = %q: %v", base, addition, text, err)
		}
		keys := map[string]bool{}
		for _, n := range p.Network {
			keys[n.Key] = true
		}
		for _, r := range []*reader{{file: "base"}, {file: "addition", addition: true}} {
			data := base
			if r.addition {
				data = addition
			}
			part, _, err := parse(r, data)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range part.Network {
				if !keys[n.Key] {
					t.Errorf("%q + %q = %q lacks %q", base, addition, text, n.Key)
				}
			}
		}
	})
}
