// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

const theKey = "sk-the-real-key-0123456789"

// guarded is a guard without a container, with its socket open.
func guarded(t *testing.T) (*Guard, *proxyapi.Client) {
	t.Helper()
	dir := t.TempDir()
	g := &Guard{
		ended: make(chan struct{}),
		Config: &proxyapi.Config{
			ID: "box", StateDir: dir, Attached: filepath.Join(dir, "attached"),
			Providers: []proxyapi.Provider{{Name: "work", Revision: 1, Credentials: []proxyapi.Credential{{Key: "A", Name: "a", Value: secret.New("the-old-value"), Revision: 1}}}},
		},
	}
	g.secrets.begin(g.Config)
	leave, err := g.receive()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	return g, proxyapi.Dial(proxyapi.SecretsSocket(dir))
}

// work is a worker: it takes what it is told, or says why not.
func work(t *testing.T, g *Guard, refuse func(*proxyapi.Secrets) string) {
	t.Helper()
	gone := make(chan struct{})
	t.Cleanup(func() { close(gone) })
	go func() {
		known := proxyapi.Known{Generation: 1}
		for {
			s, err := g.secrets.after(known, gone)
			if err != nil {
				return
			}
			known = proxyapi.Known{Generation: s.Generation, Err: refuse(s)}
		}
	}()
}

func value(s *proxyapi.Secrets) string { return s.Providers[0].Credentials[0].Value.Reveal() }

func TestUpdate(t *testing.T) {
	g, c := guarded(t)
	work(t, g, func(*proxyapi.Secrets) string { return "" })
	ctx := context.Background()
	u := &proxyapi.Update{Name: "work", Revision: 2, Credentials: []proxyapi.Credential{{Key: "A", Name: "a", Value: secret.New(theKey), Expires: time.Now().Add(time.Hour)}}}
	if err := c.Update(ctx, u); err != nil {
		t.Fatal(err)
	}
	if got := value(g.secrets.current()); got != theKey {
		t.Errorf("the value is %q", got)
	}
	all, err := c.Providers(ctx)
	if err != nil || len(all) != 1 || all[0].Revision != 2 || all[0].Expires["A"].IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	var f *proxyapi.Failure
	if err := c.Update(ctx, &proxyapi.Update{Name: "other"}); !errors.As(err, &f) || f.Code != proxyapi.CodeNotAttached {
		t.Errorf("error %v", err)
	}
	if err := c.SetInference(ctx, &proxyapi.Inference{}); !errors.As(err, &f) || f.Code != proxyapi.CodeNotAttached {
		t.Errorf("error %v", err)
	}
	if err := c.Update(ctx, &proxyapi.Update{Name: "work", Deleted: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(ctx, u); !errors.As(err, &f) || f.Code != proxyapi.CodeDeleted {
		t.Errorf("error %v", err)
	}
	if text, err := proxyapi.Encode(g.secrets.current()); err != nil || strings.Contains(string(text), theKey) {
		t.Errorf("kept after deletion: %s, %v", text, err)
	}
}

// TestBypass_B94_LongIDShowsItself: the link to the sandbox's folder has a name that a
// folder can hold, however long the ID is, and two sandboxes of one ID have two links.
func TestBypass_B94_LongIDShowsItself(t *testing.T) {
	dir := t.TempDir()
	id := strings.Repeat("n", 255)
	links := map[string]bool{}
	for _, root := range []string{"a", "b"} {
		g := &Guard{Config: &proxyapi.Config{ID: id, StateDir: filepath.Join(dir, root, id), Attached: filepath.Join(dir, "attached")}}
		if err := g.show(); err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(g.link()); err != nil || to != g.Config.StateDir {
			t.Errorf("shown as %s, %v", to, err)
		}
		links[g.link()] = true
	}
	if len(links) != 2 {
		t.Errorf("links %v", links)
	}
}

// TestAttachProvider: the guard takes providers of its own store alone, shows itself
// when it has the first, and gives away no values.
func TestAttachProvider(t *testing.T) {
	dir := t.TempDir()
	g := &Guard{ended: make(chan struct{}), Config: &proxyapi.Config{ID: "box", StateDir: filepath.Join(dir, "box"), Attached: filepath.Join(dir, "store", "attached")}}
	if err := os.Mkdir(g.Config.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.secrets.begin(g.Config)
	leave, err := g.receive()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	work(t, g, func(*proxyapi.Secrets) string { return "" })
	if _, err := os.Lstat(g.link()); err == nil {
		t.Error("it shows itself without credentials")
	}
	c, ctx := proxyapi.Dial(proxyapi.SecretsSocket(g.Config.StateDir)), context.Background()
	p := proxyapi.Provider{Name: "work", Revision: 2, Credentials: []proxyapi.Credential{{Key: "A", Name: "a", Value: secret.New(theKey), Revision: 2}}}
	for _, tc := range []struct {
		store   string
		renewed bool
		want    string
	}{
		{filepath.Join(dir, "other"), false, "not from " + filepath.Join(dir, "other")},
		{filepath.Join(dir, "store"), true, "openshell-refresher"},
	} {
		refused := p
		refused.Renewed = tc.renewed
		if err := c.Attach(ctx, &proxyapi.Attachment{Store: tc.store, Provider: refused}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want …%s…", err, tc.want)
		}
	}
	if n := len(g.secrets.current().Providers); n > 0 {
		t.Fatalf("%d providers", n)
	}
	for range 2 {
		if err := c.Attach(ctx, &proxyapi.Attachment{Store: filepath.Join(dir, "store"), Provider: p}); err != nil {
			t.Fatal(err)
		}
	}
	if got := value(g.secrets.current()); got != theKey {
		t.Errorf("the value is %q", got)
	}
	if to, err := os.Readlink(g.link()); err != nil || to != g.Config.StateDir {
		t.Errorf("shown as %s, %v", to, err)
	}
	if err := c.Detach(ctx, "work"); err != nil {
		t.Fatal(err)
	}
	var f *proxyapi.Failure
	if err := c.Detach(ctx, "none"); !errors.As(err, &f) || f.Code != proxyapi.CodeNotAttached {
		t.Errorf("error %v", err)
	}
	if all, err := c.Providers(ctx); err != nil || len(all) != 1 || all[0].Gone != proxyapi.Detached {
		t.Errorf("%+v, %v", all, err)
	}
	if text, err := proxyapi.Encode(g.secrets.current()); err != nil || strings.Contains(string(text), theKey) {
		t.Errorf("kept after detaching: %s, %v", text, err)
	}
}

// TestRefusedUpdate: what the worker cannot use is taken back, or the next worker
// would not start.
func TestRefusedUpdate(t *testing.T) {
	g, c := guarded(t)
	work(t, g, func(s *proxyapi.Secrets) string {
		if value(s) != "the-old-value" {
			return "it is bad"
		}
		return ""
	})
	err := c.Update(context.Background(), &proxyapi.Update{Name: "work", Revision: 2, Credentials: []proxyapi.Credential{{Key: "A", Name: "a", Value: secret.New(theKey)}}})
	if err == nil || !strings.Contains(err.Error(), "it is bad") || strings.Contains(err.Error(), theKey) {
		t.Errorf("error %v", err)
	}
	if got := value(g.secrets.current()); got != "the-old-value" {
		t.Errorf("the value is %q", got)
	}
}

// TestSocket: the socket is root's alone, what cannot be read is not quoted, and the
// link to the sandbox goes with the guard.
func TestSocket(t *testing.T) {
	g, _ := guarded(t)
	socket := proxyapi.SecretsSocket(g.Config.StateDir)
	st, err := os.Lstat(socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	links, err := os.ReadDir(g.Config.Attached)
	if err != nil || len(links) != 1 || filepath.Join(g.Config.Attached, links[0].Name()) != g.link() {
		t.Fatalf("%v, %v", links, err)
	}
	for _, body := range []string{`{"name":"` + theKey, `{"` + theKey + `":1}`, `[]`, strings.Repeat(theKey, proxyapi.MaxUpdate/len(theKey)+1)} {
		w := &answered{header: http.Header{}}
		r, err := http.NewRequest(http.MethodPut, proxyapi.PathProvider, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var u proxyapi.Update
		change(g, w, r, &u, func(s *proxyapi.Secrets) (*proxyapi.Secrets, error) { return s.Apply(&u) })
		if w.status != http.StatusConflict || strings.Contains(w.text.String(), theKey) {
			t.Errorf("%d %s", w.status, w.text.String())
		}
	}
}

type answered struct {
	header http.Header
	status int
	text   strings.Builder
}

func (a *answered) Header() http.Header         { return a.header }
func (a *answered) WriteHeader(status int)      { a.status = status }
func (a *answered) Write(p []byte) (int, error) { return a.text.Write(p) }

// TestFollow: a standby knows what the guard said last, also if the guard ended in the
// middle of a word.
func TestFollow(t *testing.T) {
	r, w := io.Pipe()
	g := &Guard{Config: &proxyapi.Config{}, Documents: proxyapi.NewDecoder(r)}
	done := make(chan error)
	go func() { done <- g.Follow() }()
	out := proxyapi.NewEncoder(w)
	for _, d := range []any{
		proxyapi.Container{Pid: 7}, proxyapi.Secrets{Providers: []proxyapi.Provider{{Name: "a"}}}, proxyapi.Secrets{Providers: []proxyapi.Provider{{Name: "b"}}},
	} {
		if err := out.Encode(d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, `{"providers":[{"name":"c`); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := <-done; err != nil || g.container.Pid != 7 || g.Config.Providers[0].Name != "b" {
		t.Errorf("%+v, %v", g.Config.Providers, err)
	}
}

// TestNothingPrintsCredentials: whatever prints a guard, or what it gives a worker, shows no
// credential and no key.
func TestNothingPrintsCredentials(t *testing.T) {
	g, c := guarded(t)
	work(t, g, func(*proxyapi.Secrets) string { return "" })
	if err := c.Update(context.Background(), &proxyapi.Update{Name: "work", Revision: 2, Credentials: []proxyapi.Credential{{Key: "A", Name: "a", Value: secret.New(theKey)}}}); err != nil {
		t.Fatal(err)
	}
	w := g.secrets.document(&proxyapi.WorkerConfig{Config: *g.Config, CAKey: secret.New("the-ca-key")})
	secrettest.Check(t, w, []string{theKey, "the-ca-key"})
	secrettest.Check(t, g.secrets.current(), []string{theKey})
	secrettest.Check(t, g.Config, []string{"the-old-value"})
}
