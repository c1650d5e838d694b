// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// corpusCase is one line of a corpus file: a request in any spelling, and the expected
// decision.
type corpusCase struct {
	Host      string
	Port      uint16
	Binary    string
	Ancestors []string
	HTTP      *struct {
		Method, Path, Query string
		WebSocket           bool
	}
	Forward bool
	Want    corpusAnswer
}

type corpusAnswer struct {
	Decision, Layer, Policy, Reason string
	Rule                            string `json:",omitempty"`
	// Inspect and Addresses are compared if they are present. Addresses maps an address to
	// the expected result of Destination.Check.
	Inspect   *bool             `json:",omitempty"`
	Addresses map[string]string `json:",omitempty"`
}

// TestCorpus runs the files in testdata/corpus. Each contains a policy and requests. If it
// has options.json, that holds the settings of the operator and the container.
func TestCorpus(t *testing.T) {
	stories, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil || len(stories) < 20 {
		t.Fatalf("%d stories, %v", len(stories), err)
	}
	for _, file := range stories {
		t.Run(filepath.Base(file), func(t *testing.T) {
			story, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string][]byte{}
			for _, f := range story.Files {
				files[f.Name] = f.Data
			}
			p, err := Parse("policy.yaml", files["policy.yaml"])
			if err != nil {
				t.Fatal(err)
			}
			var o CompileOptions
			if text := files["options.json"]; text != nil {
				strictJSON(t, text, &o)
			}
			e, err := Compile(p, o)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range bytes.Lines(files["requests"]) {
				var c corpusCase
				strictJSON(t, line, &c)
				if diff := cmp.Diff(c.Want, c.answer(t, e)); diff != "" {
					t.Errorf("%s%s", line, diff)
				}
				n++
			}
			if n == 0 {
				t.Error("has no requests")
			}
		})
	}
}

func strictJSON(t *testing.T, text []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// answer asks in the way the proxy does: first the connection, then the request on it.
func (c *corpusCase) answer(t *testing.T, e *Engine) corpusAnswer {
	host, err := NormalizeHost(c.Host)
	if err != nil {
		return corpusAnswer{Decision: Deny.String(), Layer: L4.String(), Reason: err.Error()}
	}
	r := &Request{Host: host, Port: c.Port, Binary: c.Binary, Ancestors: c.Ancestors, Forward: c.Forward}
	d := e.Decide(r)
	if c.HTTP != nil && d.Inspect && d.Verdict == Allow {
		path, err := CanonicalPath(c.HTTP.Path, d.AllowEncodedSlash)
		if err != nil {
			return corpusAnswer{Decision: Deny.String(), Layer: L7.String(), Policy: d.Policy, Reason: err.Error()}
		}
		r.HTTP = &HTTP{Method: c.HTTP.Method, Path: path, RawQuery: c.HTTP.Query, WebSocket: c.HTTP.WebSocket}
		d = e.Decide(r)
	}
	got := corpusAnswer{Decision: d.Verdict.String(), Layer: d.Layer.String(), Policy: d.Policy, Reason: d.Reason}
	if c.Want.Rule != "" {
		got.Rule = d.Rule
	}
	if c.Want.Inspect != nil {
		got.Inspect = &d.Inspect
	}
	for text := range c.Want.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got.Addresses == nil {
			got.Addresses = map[string]string{}
		}
		why, _ := d.Destination.Check(addr, c.Port)
		got.Addresses[text] = why.String()
	}
	return got
}
