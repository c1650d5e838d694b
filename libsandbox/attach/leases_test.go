// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

// refresherVariable makes the test program act as the refresher.
const refresherVariable = "OPENSHELL_TEST_REFRESHER"

func TestMain(m *testing.M) {
	if os.Getenv(refresherVariable) == "" {
		os.Exit(m.Run())
	}
	if err := refreshOnce(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// refreshOnce is `refresh --store DIR … --due NAME`: it gives the provider a value.
func refreshOnce(args []string) error {
	verb, flags := args[0], flag.NewFlagSet("refresher", flag.ContinueOnError)
	dir, due := flags.String("store", "", ""), flags.String("due", "", "")
	flags.Func("ca-file", "", func(string) error { return nil })
	if err := flags.Parse(args[1:]); err != nil || verb != "refresh" {
		return fmt.Errorf("%s: %w", verb, err)
	}
	s, err := provider.Open(*dir)
	if err != nil {
		return err
	}
	_, err = s.Update(*due, func(p *provider.Provider) (bool, error) {
		p.Values = map[string]secret.Secret{"api_token": secret.New("refreshed")}
		for _, o := range p.Origins {
			o.Status = provider.Status{Next: time.Now().Add(time.Hour)}
		}
		return true, nil
	})
	return err
}

// provideStale adds a provider whose only credential has no value yet.
func (m *machine) provideStale(name string) {
	m.t.Helper()
	p := &provider.Provider{Name: name, Profile: "github", Origins: map[string]*provider.Origin{"api_token": {Kind: provider.FromVault}}}
	if err := m.store.Put(p); err != nil {
		m.t.Fatal(err)
	}
}

// newTestLeases returns leases whose refresher is a script.
func newTestLeases(m *machine, script string) *leases {
	l := newLeases(m.options("version: 1\n", "upstream: {ca_files: [a.pem]}\n").Config)
	l.refresher = m.write("refresher", "#!/bin/sh\n"+script, 0o700)
	return l
}

// TestAcquireRefreshes: a value that has expired is refreshed before it is handed out, and
// the guard gets the command line of the refresher.
func TestAcquireRefreshes(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	m.provideStale("forge")
	l := newTestLeases(m, refresherVariable+"=1 exec '"+self+"' \"$@\"\n")
	defer l.release()
	p, err := l.acquire("forge")
	if err != nil {
		t.Fatal(err)
	}
	if p.values.Credentials[0].Value.Reveal() != "refreshed" || !p.values.Renewed {
		t.Errorf("revision %d without the refreshed value", p.values.Revision)
	}
	if !m.locked("forge") {
		t.Error("the provider is not locked")
	}
	argv, err := l.command("serve")
	if want := []string{l.refresher, "serve", "--store", m.path("providers"), "--ca-file", m.path("a.pem")}; err != nil || !slices.Equal(argv, want) {
		t.Errorf("%q, %v, want %q", argv, err, want)
	}
}

// TestAcquireCannotRefresh: the error has the refresher's reason, or why it did not run.
func TestAcquireCannotRefresh(t *testing.T) {
	for _, tc := range []struct{ name, script, want string }{
		{"it fails", "echo 'the token endpoint says no' >&2; exit 1\n", "refresh the credentials of provider forge: the token endpoint says no"},
		{"it fails silently", "exit 3\n", "refresh the credentials of provider forge: exit status 3"},
		{"it makes nothing", "exit 0\n", "provider forge: credential api_token has no value that can be used"},
		{"it says too much", "head -c 10000 /dev/zero | tr '\\0' x >&2; exit 1\n", strings.Repeat("x", maxRefreshError)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			m.provideStale("forge")
			l := newTestLeases(m, tc.script)
			defer l.release()
			_, err := l.acquire("forge")
			if err == nil || !strings.Contains(err.Error(), tc.want) || len(err.Error()) > maxRefreshError+100 {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestRefresherIsMissing: that is an error only for a sandbox that needs it.
func TestRefresherIsMissing(t *testing.T) {
	m := newMachine(t)
	m.provide("forge", "github", map[string]string{"api_token": "token-1"})
	m.provideStale("stale")
	o := m.options("version: 1\n", "")
	o.Providers = []string{"forge"}
	a, err := Attach(o)
	if err != nil {
		t.Fatal(err)
	}
	a.Release()
	if a.Config.Refresher != nil {
		t.Errorf("refresher %q", a.Config.Refresher.Argv)
	}
	o.Providers = []string{"stale"}
	if _, err := Attach(o); err == nil || !strings.Contains(err.Error(), "openshell-refresher, which belongs beside the runtime") {
		t.Errorf("error %v", err)
	}
}

// TestNothingPrintsCredentials: every printed form of an attachment shows no credential.
func TestNothingPrintsCredentials(t *testing.T) {
	m := newMachine(t)
	m.provide("forge", "github", map[string]string{"api_token": "the-token-0123456789"})
	o := m.options("version: 1\n", "")
	o.Providers = []string{"forge"}
	a, err := Attach(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	secrettest.Check(t, a, []string{"the-token-0123456789"})
	secrettest.Check(t, a.leases, []string{"the-token-0123456789"})
}
