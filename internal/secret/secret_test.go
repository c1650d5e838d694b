// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

const canary = "s3cr3t-canary"

// place holds secrets in every way that a type can.
type place struct {
	Exported   secret.Secret
	unexported secret.Secret
	Nested     struct{ inner secret.Secret }
	pointer    *secret.Secret
	list       []secret.Secret
	table      map[string]secret.Secret
	anything   any
	secret.Secret
}

func full() place {
	s := func(where string) secret.Secret { return secret.New(canary + "-" + where) }
	pointed := s("pointer")
	p := place{
		Exported: s("exported"), unexported: s("unexported"), pointer: &pointed, list: []secret.Secret{s("list")},
		table: map[string]secret.Secret{"k": s("table")}, anything: s("anything"), Secret: s("embedded"),
	}
	p.Nested.inner = s("nested")
	return p
}

var places = []string{"exported", "unexported", "nested", "pointer", "list", "table", "anything", "embedded"}

// TestNothingPrints: a Secret shows no value, wherever it is.
func TestNothingPrints(t *testing.T) {
	var all []string
	for _, p := range places {
		all = append(all, canary+"-"+p)
	}
	p := full()
	secrettest.Check(t, p, all)
	secrettest.Check(t, &p, all)
	secrettest.Check(t, map[string]any{"p": p}, all)
	if text, err := yaml.Marshal(p.Exported); err != nil || strings.Contains(string(text), canary) {
		t.Errorf("YAML: %s, %v", text, err)
	}
	if text, err := xml.Marshal(p.Exported); err != nil || strings.Contains(string(text), canary) {
		t.Errorf("XML: %s, %v", text, err)
	}
	if text, err := json.Marshal(map[string]any{"k": p.Exported}); err != nil || string(text) != `{"k":"[redacted]"}` {
		t.Errorf("JSON: %s, %v", text, err)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(struct{ S secret.Secret }{p.Exported}); err == nil || strings.Contains(b.String(), canary) {
		t.Errorf("gob: %q, %v", b.Bytes(), err)
	}
	if got := p.Exported.Reveal(); got != canary+"-exported" {
		t.Errorf("Reveal returns %q", got)
	}
}

// recorder counts the errors of a test.
type recorder struct {
	testing.TB
	errors []string
}

func (*recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// guarded keeps a secret as text, and shows it where fmt calls no methods. hidden does not.
type (
	guarded struct{ Text string }
	hidden  struct{ text *string }
)

func (guarded) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte("guarded")) }
func (guarded) MarshalText() ([]byte, error) { return []byte("guarded"), nil }

// TestCheckCanFail: Check finds a secret that is a string, a byte slice or in a value that
// guards itself only while its methods are called, and notices when there is none.
func TestCheckCanFail(t *testing.T) {
	type field struct{ value string }
	text := canary
	for name, tc := range map[string]struct {
		root any
		text []any
		want string
	}{
		"a string":           {root: canary, want: "shows"},
		"a field":            {root: field{canary}, want: "shows"},
		"a field behind":     {root: struct{ p *field }{&field{canary}}, want: "shows"},
		"bytes":              {root: struct{ b []byte }{[]byte(canary)}, want: "shows"},
		"a key":              {root: map[string]int{canary: 1}, want: "shows"},
		"an error":           {root: struct{ err error }{fmt.Errorf("no %s", canary)}, want: "shows"},
		"a guard in a field": {root: struct{ g guarded }{guarded{canary}}, text: []any{guarded{}}, want: "shows"},
		"a guard behind":     {root: struct{ g *guarded }{&guarded{canary}}, text: []any{guarded{}}, want: "shows"}, // with %s
		"a guard's inside":   {root: &guarded{canary}, want: "shows"},
		"text behind":        {root: &hidden{&text}, want: "shows"},
		"nothing":            {root: struct{ s secret.Secret }{}, want: "does not hold"},
		"another one":        {root: secret.New("other"), want: "does not hold"},
		"text that is known": {root: &struct{ h *hidden }{&hidden{&text}}, text: []any{hidden{}}},
		"a secret":           {root: secret.New(canary)},
	} {
		r := &recorder{}
		secrettest.Check(r, tc.root, []string{canary}, tc.text...)
		if got := strings.Join(r.errors, "\n"); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestUnmarshal: encoding/json reads no secret, so that a placeholder never becomes one.
func TestUnmarshal(t *testing.T) {
	var in struct {
		S secret.Secret `json:"s,omitzero"`
	}
	if err := json.Unmarshal([]byte(`{"s":"[redacted]"}`), &in); err == nil {
		t.Errorf("read %q", in.S.Reveal())
	}
	if err := yaml.Unmarshal([]byte(`s: "[redacted]"`), &in); err == nil {
		t.Errorf("read %q", in.S.Reveal())
	}
	if text, err := json.Marshal(in); err != nil || string(text) != "{}" {
		t.Errorf("no value is encoded as %s, %v", text, err)
	}
}

func TestEqual(t *testing.T) {
	a, b := secret.New("a"), secret.New("a")
	if !a.Equal(b) || a.Equal(secret.New("b")) || !(secret.Secret{}).Equal(secret.New("")) || a.IsZero() || !secret.New("").IsZero() {
		t.Error("Equal or IsZero")
	}
}
