// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

func TestBuiltin(t *testing.T) {
	all, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{
		"claude-code", "codex", "copilot", "opencode", "openclaw", "gemini", "github", "gitlab", "openai", "anthropic", "nvidia",
		"google-vertex-ai", "aws", "azure-openai", "openrouter", "ollama",
	} {
		found := false
		for _, p := range all {
			found = found || p.ID == id && len(p.Endpoints) > 0
		}
		if !found {
			t.Errorf("no built-in profile %s with endpoints", id)
		}
	}
}

func TestParseProfileRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no id", "display_name: x\n", `id ""`},
		{"unknown key", "id: a\nendpoint: []\n", "field endpoint not found"},
		{"category", "id: a\ncategory: games\n", "unsupported provider profile category: games"},
		{"auth style", "id: a\ncredentials: [{name: k, env_vars: [K], auth_style: digest}]\n", "unsupported auth_style: digest"},
		{"header name", "id: a\ncredentials: [{name: k, env_vars: [K], auth_style: header}]\n", "header_name is required for header auth"},
		{"path template", "id: a\ncredentials: [{name: k, env_vars: [K], auth_style: path, path_template: /bot}]\n", "path_template is required"},
		{"query name", "id: a\ncredentials: [{name: k, env_vars: [K], auth_style: query}]\n", "query_param is required"},
		{"twice", "id: a\ncredentials: [{name: k}, {name: k}]\n", "there twice"},
		{"variable twice", "id: a\ncredentials: [{name: k, env_vars: [A]}, {name: l, env_vars: [A]}]\n", "A is k's, too"},
		{"variable", "id: a\ncredentials: [{name: k, env_vars: [\"A=B\"]}]\n", "not a variable's name"},
		{"reserved", "id: a\ncredentials: [{name: k, env_vars: [v1_KEY]}]\n", "placeholders reserve"},
		{"discovery", "id: a\ndiscovery: {credentials: [k]}\n", `no credential "k"`},
		{"no host", "id: a\nendpoints: [{port: 443}]\n", "host must not be empty"},
		{"everywhere", "id: a\nendpoints: [{host: \"*.com\", port: 443}]\n", "reaches too much"},
		{"no port", "id: a\nendpoints: [{host: a.b.c}]\n", "port must be"},
		{"path", "id: a\nendpoints: [{host: a.b.c, port: 1, path: x}]\n", "must start with /"},
		{"endpoint key", "id: a\nendpoints: [{host: a.b.c, port: 1, prot: rest}]\n", `unknown field "prot"`},
		{"grant", "id: a\ncredentials: [{name: k, token_grant: {token_endpoint: x}}]\n", "token_grant is not supported"},
		{"strategy", "id: a\ncredentials: [{name: k, refresh: {strategy: magic}}]\n", `refresh.strategy "magic"`},
		{"two", "id: a\n---\nid: b\n", "more than one document"},
		{"large", "id: a\n#" + strings.Repeat("x", MaxProfile), "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ParseProfile("p.yaml", []byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func open(t *testing.T) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "providers")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestStore(t *testing.T) {
	s, dir := open(t)
	const value = "sk-the-real-key-0123456789"
	if err := s.Put(&Provider{Name: "work", Profile: "openai", Values: map[string]secret.Secret{"api_key": secret.New(value)}}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := again.Get("work")
	if err != nil || p.Values["api_key"].Reveal() != value || p.Profile != "openai" || p.Revision != 1 || p.Created.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	if names, err := again.List(); err != nil || len(names) != 1 || names[0] != "work" {
		t.Errorf("list %v, %v", names, err)
	}
	// The value is in no file, and no file is another's to read.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(value)) {
			t.Errorf("%s holds the value", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := again.Delete("work"); err != nil {
		t.Error(err)
	}
	if _, err := again.Get("work"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if err := again.Delete("work"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
}

func TestStoreRefuses(t *testing.T) {
	s, dir := open(t)
	for _, p := range []*Provider{
		{Name: "../x"},
		{Name: ""},
		{Name: "a", Values: map[string]secret.Secret{"k": secret.New("")}},
		{Name: "a", Values: map[string]secret.Secret{"k": secret.New(strings.Repeat("x", MaxValue+1))}},
	} {
		if err := s.Put(p); err == nil {
			t.Errorf("%+v was kept", p)
		}
	}
	if err := s.Put(&Provider{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	// A file under another name is another's.
	if err := os.Rename(filepath.Join(dir, "a.age"), filepath.Join(dir, "b.age")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("b"); err == nil {
		t.Error("another provider's file was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "c.age"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("c"); err == nil {
		t.Error("junk was taken")
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("error %v", err)
	}
}

// TestNothingPrintsSecrets formats the types of the store and the documents that it returns.
// The result contains no credential, and no material from which a credential is fetched.
func TestNothingPrintsSecrets(t *testing.T) {
	p := &Provider{
		Name: "a", Profile: "openai", Values: map[string]secret.Secret{"api_key": secret.New("the-value")},
		Origins: map[string]*Origin{"other": {Kind: ClientCredentials, Material: map[string]secret.Secret{"client_secret": secret.New("the-material")}}},
	}
	secrettest.Check(t, p, []string{"the-value", "the-material"})
	s, _ := open(t)
	if err := s.Put(p); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, s, []string{strings.TrimSpace(string(key))})
	back, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, back, []string{"the-value", "the-material"})
	handed, profile, release, err := s.Take("a", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	secrettest.Check(t, handed, []string{"the-value"})
	secrettest.Check(t, profile.Bind(handed), []string{"the-value"})
	routeKey, err := profile.RouteKey(handed, &inferencefile.Route{Name: "r", Dialect: "openai", Provider: "a"})
	if err != nil {
		t.Fatal(err)
	}
	secrettest.Check(t, routeKey, []string{"the-value"})
	found := profile.Discover(func(name string) string { return "the-variable" })
	secrettest.Check(t, found, []string{"the-variable"})
}

func TestImport(t *testing.T) {
	s, _ := open(t)
	if _, err := s.Import("x.yaml", []byte("id: openai\ndisplay_name: mine\n")); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Profile("openai"); err != nil || p.DisplayName != "mine" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Profile("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte("id: a\ncredentials: [{name: k, env_vars: [K]}]\nendpoints: [{host: a.b.c, port: 443, rules: []}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParseProfile("p", text); (p == nil) == (err == nil) {
			t.Fatalf("%v with %v", p, err)
		}
	})
}

// TestHandedPlace: the proxy is told the place that a credential's auth_style selects, and no
// other field of it.
func TestHandedPlace(t *testing.T) {
	profile, err := ParseProfile("p.yaml", []byte(`id: p
credentials:
  - {name: none, env_vars: [NONE], header_name: x-ignored}
  - {name: bearer, env_vars: [BEARER], auth_style: Bearer}
  - {name: header, env_vars: [HEADER], auth_style: header, header_name: x-key, query_param: ignored}
  - {name: query, env_vars: [QUERY], auth_style: query, query_param: key, header_name: x-ignored}
  - {name: path, env_vars: [PATH_KEY], auth_style: path, path_template: "/bot{credential}/"}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Name: "p", Values: map[string]secret.Secret{}}
	for _, c := range profile.Credentials {
		p.Values[c.Name] = secret.New("v")
	}
	handed, err := p.Handed(profile, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range handed.Credentials {
		got[c.Key] = c.Header + "|" + c.Query + "|" + c.Path
	}
	want := map[string]string{"NONE": "||", "BEARER": "||", "HEADER": "x-key||", "QUERY": "|key|", "PATH_KEY": "||/bot{credential}/"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
