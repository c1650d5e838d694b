// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"openshell.dev/runtime/internal/decisionlog"
)

const soakKeysPolicy = `version: 1
filesystem_policy: {read_only: [/bin, /etc, /proc], read_write: [/tmp]}
network_policies:
  api:
    endpoints: [{host: api.test, port: 443, protocol: rest, enforcement: enforce, access: full, request_body_credential_rewrite: true}]
    binaries: [{path: /bin/probe}]
`

// keyed is an API and a model that take the keys of the tests, and say so of any other.
type keyed struct {
	mu     sync.Mutex
	heard  map[string]int // by key
	models map[string]int
	wrong  []string
}

func (k *keyed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var m struct {
		Key, Model string
		Stream     bool
		Messages   []struct{ Content string }
	}
	_ = json.Unmarshal(body, &m)
	key := r.Header.Get("X-Api-Key") + m.Key
	k.mu.Lock()
	switch {
	case key != realKey && key != nextKey, r.Header.Get("Authorization") != "", r.URL.Path == "/v1/foreign", strings.Contains(string(body), "openshell:"):
		k.wrong = append(k.wrong, fmt.Sprintf("%s %s %v %.300q", r.Method, r.URL.Path, r.Header, body))
	default:
		k.heard[key]++
		k.models[m.Model]++
	}
	k.mu.Unlock()
	if len(m.Messages) == 0 {
		fmt.Fprintf(w, "heard %s with %s, %s", r.URL.Path, key, m.Key)
		return
	}
	n, _ := strconv.Atoi(m.Messages[0].Content)
	if m.Stream {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range n {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word%d \"}}]}\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
		return
	}
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "word%d ", i)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"1","object":"chat.completion","model":"real","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}]}`, &text)
}

// TestSoakKeys: while keys, models and policies change, every request arrives with a key
// that is or was the real one, every answer is whole, and nothing else passes.
func TestSoakKeys(t *testing.T) {
	length := soakLength(t)
	t.Parallel()
	k := &keyed{heard: map[string]int{}, models: map[string]int{}}
	up := startUpstream(t)
	up.Handler = k
	b := boxOf(t, boxOptions{policy: soakKeysPolicy, up: up, argv: lives(length), env: []string{"TEST_API_KEY=" + realKey}})
	routes := b.file("inference.yaml", "routes: [{name: main, dialect: openai, base_url: \"https://api.test/v1\", provider: work, model: model0}]\n")
	b.attach(t, testProfile, "inference_file: "+routes+"\n")
	b.flags = append(b.flags, "--provider", "work")
	if out, err := b.runtime("run", "--detach", "--bundle", b.dir, b.id); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	policy := b.file("policy.yaml", soakKeysPolicy)
	store := filepath.Join(b.dir, "providers")
	n := 0
	b.lasting(length, "soakkeys", func() {
		n++
		if out, ok := b.provider([]string{"TEST_API_KEY=" + []string{realKey, nextKey}[n%2]}, "update", "work", "--from-existing"); !ok {
			t.Errorf("key %d: %s", n, out)
		}
		if out, err := exec.Command(filepath.Join(b.bin, "openshell"), "inference", "update", "main", "--model", fmt.Sprintf("model%d", n), "--file", routes, "--store", store).CombinedOutput(); err != nil {
			t.Errorf("model %d: %v: %s", n, err, out)
		}
		if out, status := b.cli("policy", "set", b.id, "--policy", policy, "--wait"); status != 0 {
			t.Errorf("policy %d: %s", n, out)
		}
	})
	b.refusedOnly(func(r decisionlog.Record) bool { return r.Path == "/v1/foreign" })
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, w := range k.wrong {
		if i < 10 {
			t.Errorf("the API heard %s", w)
		}
	}
	if len(k.heard) != 2 || len(k.models) < n/2 {
		t.Errorf("%d changes; keys %d, models %v", n, len(k.heard), k.models)
	}
	t.Logf("%d changes", n)
}
