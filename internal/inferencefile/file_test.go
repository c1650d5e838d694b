// SPDX-License-Identifier: Apache-2.0

package inferencefile

import (
	"path/filepath"
	"strings"
	"testing"
)

const good = "routes: [{name: a, dialect: openai, base_url: \"https://api.example.com/v1\", provider: work, fallbacks: [b]}, {name: b, dialect: openai, base_url: \"http://10.0.0.1:8000/v1\"}]\n"

func TestRoundTrip(t *testing.T) {
	f, err := Parse("f", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "i.yaml")
	if err := f.Save(file); err != nil {
		t.Fatal(err)
	}
	g, err := Load(file)
	if err != nil || len(g.Routes) != 2 || g.Routes[0].Provider != "work" {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := Load(filepath.Join(t.TempDir(), "none")); err != nil || len(g.Routes) != 0 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "route: []\n", "field route not found"},
		{"name", "routes: [{name: A, dialect: openai, base_url: \"https://a\"}]\n", `name "A"`},
		{"twice", "routes: [{name: a, dialect: openai, base_url: \"https://a\"}, {name: a, dialect: openai, base_url: \"https://a\"}]\n", "occurs twice"},
		{"dialect", "routes: [{name: a, dialect: klingon, base_url: \"https://a\"}]\n", `dialect "klingon"`},
		{"no URL", "routes: [{name: a, dialect: openai, base_url: a}]\n", "want an http or https URL"},
		{"key in URL", "routes: [{name: a, dialect: openai, base_url: \"https://u:p@a\"}]\n", "must not have a user"},
		{"key in clear", "routes: [{name: a, dialect: openai, base_url: \"http://a\", provider: p}]\n", "a credential needs https"},
		{"fallback", "routes: [{name: a, dialect: openai, base_url: \"https://a\", fallbacks: [a]}]\n", "is not another route"},
		{"budget", "budget: {total_tokens: -1}\n", "negative"},
		{"weight", "routes: [{name: a, dialect: openai, base_url: \"https://a\", weight: -1}]\n", "may not be negative"},
		{"large", strings.Repeat("#", MaxSize+1), "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Parse("f", []byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := Parse("f", text); (p == nil) == (err == nil) {
			t.Fatalf("%v with %v", p, err)
		}
	})
}
