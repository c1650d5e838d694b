// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// client returns a client whose program has this name and prints a text.
func client(t *testing.T, name, said string) *Client {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncat <<'END'\n%s\nEND\n", said)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	all := Clients()
	return &all[slices.IndexFunc(all, func(c Client) bool { return c.Name == name })]
}

func TestRegistries(t *testing.T) {
	for _, tc := range []struct{ what, client, said, want, fails string }{
		{"npm's, also of a scope", "npm", `{"registry":"https://npm.test/","@a:registry":"https://a.test/npm/","@b:registry":"","cache":"https://no.test"}`, "https://a.test/npm/ https://npm.test/", ""},
		{"without a credential", "npm", `{"registry":"https://user:secret@npm.test/?key=secret"}`, "https://npm.test/", ""},
		{"no JSON", "npm", "oops", "", "npm config list"},
		{"no URL", "npm", `{"registry":"secret"}`, "", "is not a URL"},
		{"none", "npm", `{}`, "", "no registry"},
		{"go's proxies and sums", "go", "https://one.test|https://two.test/x,direct\nsum.test+abc", "https://one.test https://two.test/x https://sum.test", ""},
		{"sums elsewhere", "go", "https://one.test\nsum.test https://sums.test/db", "https://one.test https://sums.test/db", ""},
		{"no sums", "go", "https://one.test\noff", "https://one.test", ""},
		{"no proxy", "go", "direct\nsum.test", "", "no registry"},
		{"pip's", "pip", "global.extra-index-url='https://a.test/simple https://b.test/simple'\nglobal.index-url='https://pip.test/simple'\nglobal.timeout='5'", "https://a.test/simple https://b.test/simple https://pip.test/simple", ""},
		{"pip's built-in", "pip", "", "", "pip config set global.index-url"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			got, err := client(t, tc.client, tc.said).Registries(t.Context())
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v, %v; want …%s…", got, err, tc.fails)
				}
				return
			}
			var all []string
			for _, u := range got {
				all = append(all, u.String())
			}
			if s := strings.Join(all, " "); s != tc.want || err != nil {
				t.Errorf("%s, %v; want %s", s, err, tc.want)
			}
		})
	}
}

func TestClientIsNotThere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range Clients() {
		if _, err := c.Registries(t.Context()); err == nil || !strings.Contains(err.Error(), "is not installed here") {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}
