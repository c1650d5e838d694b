// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// court is a judge that knows four kinds of text.
type court struct {
	mu       sync.Mutex
	inside   int
	revision int
	text     string
}

func (c *court) Load(name string, text []byte) (int, error) {
	c.mu.Lock()
	c.inside++
	alone := c.inside == 1
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.inside--
		c.mu.Unlock()
	}()
	time.Sleep(time.Millisecond) //nolint:forbidigo // two loads at once would overlap
	switch s := string(text); {
	case !alone:
		return 0, errors.New("two loads at once")
	case strings.HasPrefix(s, "static: programs"):
		return 0, &proxyapi.Failure{Code: proxyapi.CodeStaticChange, Fields: []string{"network_policies.a.binaries[0]"}, Detail: "because"}
	case strings.HasPrefix(s, "static"):
		return 0, &proxyapi.Failure{Code: proxyapi.CodeStaticChange, Fields: []string{"filesystem_policy", "process"}}
	case strings.HasPrefix(s, "invalid"):
		return 0, &proxyapi.Failure{Code: proxyapi.CodeInvalidPolicy, Detail: fmt.Sprintf("%s:1:1: %s", name, s)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasPrefix(string(text), "closes") {
		c.revision++
		c.text = ""
		return 0, &proxyapi.Failure{Code: proxyapi.CodeInvalidPolicy, Detail: name, Denies: c.revision}
	}
	c.revision++
	c.text = string(text)
	return c.revision, nil
}

func (c *court) Status() proxyapi.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return proxyapi.Status{ID: "box", Revision: c.revision, Connections: 3, Pid: 42}
}

func (c *court) Metrics() []byte { return []byte("counted 1\n") }

type fixture struct {
	judge  *court
	dir    string
	socket string
	client *proxyapi.Client
}

// start serves a judge that enforces what dir says, as a proxy's worker does.
func start(t *testing.T, dir string) *fixture {
	t.Helper()
	n, text, _, err := Latest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		n, text = 1, []byte("first")
		if err := First(dir, "created.yaml", text); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{judge: &court{revision: n, text: string(text)}, dir: dir}
	s, err := New(f.judge, dir)
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "ctl-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	// Longer than a socket's address, as under a container engine.
	long := filepath.Join(run, strings.Repeat("d", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	f.socket = proxyapi.ControlSocket(long)
	folder, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(f.socket)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	f.client = proxyapi.Dial(f.socket)
	return f
}

func (f *fixture) set(t *testing.T, text string) int {
	t.Helper()
	n, err := f.client.SetPolicy(t.Context(), text+".yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMetrics(t *testing.T) {
	f := start(t, t.TempDir())
	text, err := f.client.Metrics(t.Context())
	if err != nil || string(text) != "counted 1\n" {
		t.Errorf("%q %v", text, err)
	}
}

func TestSetGetListRollback(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	ctx := t.Context()
	if n := f.set(t, "second"); n != 2 || f.judge.text != "second" {
		t.Errorf("set: revision %d, enforced %q", n, f.judge.text)
	}
	if n, err := f.client.Rollback(ctx, 1); err != nil || n != 3 || f.judge.text != "first" {
		t.Errorf("rollback: revision %d, %v, enforced %q", n, err, f.judge.text)
	}
	for _, tc := range []struct {
		ask, want int
		text      string
	}{{0, 3, "first"}, {2, 2, "second"}} {
		text, n, err := f.client.Policy(ctx, tc.ask)
		if err != nil || n != tc.want || string(text) != tc.text {
			t.Errorf("get %d: %q, revision %d, %v", tc.ask, text, n, err)
		}
	}
	list, err := f.client.Policies(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []proxyapi.Revision{
		{Revision: 1, Name: "created.yaml", Status: "superseded"}, {Revision: 2, Name: "second.yaml", Status: "superseded"}, {Revision: 3, Name: "created.yaml", Status: "loaded"},
	}
	if d := cmp.Diff(want, list, cmpopts.IgnoreFields(proxyapi.Revision{}, "LoadedAt")); d != "" {
		t.Error(d)
	}
	if st, err := f.client.Status(ctx); err != nil || st.Revision != 3 || st.Pid != 42 || st.Connections != 3 {
		t.Errorf("status: %+v, %v", st, err)
	}
}

// What is refused changes nothing and is not kept.
func TestRefusedSetLeavesTheOldPolicy(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	for _, tc := range []struct {
		name string
		ask  func(ctx context.Context) (int, error)
		want proxyapi.Failure
	}{
		{
			"static change", func(ctx context.Context) (int, error) { return f.client.SetPolicy(ctx, "p", []byte("static")) },
			proxyapi.Failure{Code: "static_change", Fields: []string{"filesystem_policy", "process"}},
		},
		{
			"static change with a reason", func(ctx context.Context) (int, error) {
				return f.client.SetPolicy(ctx, "p", []byte("static: programs"))
			},
			proxyapi.Failure{Code: "static_change", Fields: []string{"network_policies.a.binaries[0]"}, Detail: "because"},
		},
		{
			"invalid", func(ctx context.Context) (int, error) { return f.client.SetPolicy(ctx, "p", []byte("invalid")) },
			proxyapi.Failure{Code: "invalid_policy", Detail: "p:1:1: invalid"},
		},
		{
			"terminal escape in the name", func(ctx context.Context) (int, error) { return f.client.SetPolicy(ctx, "\x1b[2J", []byte("x")) },
			proxyapi.Failure{Code: "bad_request", Detail: "name is longer than 1024 bytes or not printable"},
		},
		{"too large", func(ctx context.Context) (int, error) {
			return f.client.SetPolicy(ctx, "p", make([]byte, policy.MaxSize+1))
		}, proxyapi.Failure{Code: "too_large", Detail: "the body is larger than 4194304 bytes"}},
		{
			"rollback to what never was", func(ctx context.Context) (int, error) { return f.client.Rollback(ctx, 9) },
			proxyapi.Failure{Code: "not_found", Detail: "revision 9 is not kept"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.ask(t.Context())
			var got *proxyapi.Failure
			if !errors.As(err, &got) {
				t.Fatalf("error %v, want a *Failure", err)
			}
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if f.judge.text != "first" {
		t.Errorf("enforced %q", f.judge.text)
	}
	if n, text, _, err := Latest(f.dir); err != nil || n != 1 || string(text) != "first" {
		t.Errorf("kept revision %d %q, %v", n, text, err)
	}
	if entries, err := os.ReadDir(f.dir); err != nil || len(entries) != 2 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
}

// A policy with very much wrong is answered in bounds.
func TestInvalidDetailIsBounded(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	_, err := f.client.SetPolicy(t.Context(), "p", []byte("invalid"+strings.Repeat("é wrong\n", 1<<18)))
	var got *proxyapi.Failure
	if !errors.As(err, &got) || got.Code != proxyapi.CodeInvalidPolicy || len(got.Detail) > MaxDetail+8 || len(got.Detail) < MaxDetail/2 {
		t.Errorf("%.100v", err)
	}
}

// A worker that starts again begins with the newest revision, and numbers go on.
func TestRevisionsSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policies")
	f := start(t, dir)
	f.set(t, "second")
	// What a kill between two writes leaves.
	for _, name := range []string{"pending", "7.yaml", ".index.json.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, dir)
	if again.judge.text != "second" {
		t.Errorf("starts with %q", again.judge.text)
	}
	if n := again.set(t, "third"); n != 3 {
		t.Errorf("revision %d", n)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
}

// An invalid policy since which everything is denied is a revision without a text,
// which a worker that starts again finds, until another is set.
func TestBypass_B74_DenyingIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policies")
	f := start(t, dir)
	f.set(t, "second")
	for want := 3; want <= 4; want++ {
		_, err := f.client.SetPolicy(t.Context(), "bad", []byte("closes"))
		var got *proxyapi.Failure
		if !errors.As(err, &got) || got.Code != proxyapi.CodeInvalidPolicy || got.Denies != want {
			t.Fatalf("%v, want that revision %d denies", err, want)
		}
		if n, name, err := Refused(dir); n != want || name != "bad" || err != nil {
			t.Errorf("kept is %d %q, %v", n, name, err)
		}
	}
	list, err := f.client.Policies(t.Context())
	want := []proxyapi.Revision{
		{Revision: 1, Name: "created.yaml", Status: "superseded"}, {Revision: 2, Name: "second.yaml", Status: "superseded"}, {Revision: 4, Name: "bad", Status: "failed"},
	}
	if d := cmp.Diff(want, list, cmpopts.IgnoreFields(proxyapi.Revision{}, "LoadedAt")); d != "" || err != nil {
		t.Error(d, err)
	}
	if text, _, err := f.client.Policy(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "revision 4 is invalid") {
		t.Errorf("in force is %q, %v", text, err)
	}
	if text, _, err := f.client.Policy(t.Context(), 2); string(text) != "second" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	again := start(t, dir)
	again.judge.revision = 4 // as Refused tells a worker
	if n, err := again.client.Rollback(t.Context(), 1); n != 5 || err != nil {
		t.Errorf("rollback: %d, %v", n, err)
	}
	if n, _, err := Refused(dir); n != 0 || err != nil {
		t.Errorf("still refused: %d, %v", n, err)
	}
}

func TestBrokenIndexIsAnError(t *testing.T) {
	for _, tc := range []struct{ name, index string }{
		{"not JSON", "{"},
		{"other version", `{"version":2,"revisions":[]}`},
		{"out of order", `{"version":1,"revisions":[{"revision":2},{"revision":1}]}`},
		{"refused and nothing else", `{"version":1,"revisions":[],"refused":{"revision":1}}`},
		{"refused out of order", `{"version":1,"revisions":[{"revision":2,"size":5}],"refused":{"revision":2}}`},
		{"text is missing", `{"version":1,"revisions":[{"revision":1,"size":1}]}`},
		{"text is cut off", `{"version":1,"revisions":[{"revision":2,"size":100}]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"index.json": tc.index, "2.yaml": "short"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if n, text, _, err := Latest(dir); err == nil {
				t.Errorf("revision %d %q", n, text)
			}
		})
	}
}

func TestRevisionsAreBounded(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	for range MaxRevisions + 3 {
		f.set(t, "small")
	}
	list, err := f.client.Policies(t.Context())
	if err != nil || len(list) != MaxRevisions || list[0].Revision != 5 {
		t.Errorf("%d kept from %v, %v", len(list), list[0], err)
	}
	large := "large" + strings.Repeat("x", policy.MaxSize-5)
	for range MaxKept/policy.MaxSize + 1 {
		if _, err := f.client.SetPolicy(t.Context(), "p", []byte(large)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = f.client.Policies(t.Context()); err != nil || len(list) != MaxKept/policy.MaxSize {
		t.Errorf("%d large ones kept, %v", len(list), err)
	}
	if entries, err := os.ReadDir(f.dir); err != nil || len(entries) != len(list)+1 {
		t.Errorf("folder holds %d, %v", len(entries), err)
	}
}

func TestSetsAreSerialised(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	const sets = 12
	var wg sync.WaitGroup
	for i := range sets {
		wg.Go(func() {
			if _, err := f.client.SetPolicy(context.Background(), "p", fmt.Appendf(nil, "text %d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, text, _, err := Latest(f.dir); err != nil || n != sets+1 || string(text) != f.judge.text {
		t.Errorf("kept revision %d %q, enforced %q, %v", n, text, f.judge.text, err)
	}
}

// What is not understood is refused by name, not ignored.
func TestBadRequests(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "policies"))
	raw := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		dir, err := os.Open(filepath.Dir(f.socket))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", dir.Fd()))
	}}}
	t.Cleanup(raw.CloseIdleConnections)
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"unknown path", "GET", "/", "", 404, "not found"},
		{"unknown method", "DELETE", "/v1/policy", "", 405, "Not Allowed"},
		{"unknown parameter", "GET", "/v1/status?x=1", "", 400, `parameter \"x\" is unknown`},
		{"parameter twice", "GET", "/v1/policy?revision=1&revision=2", "", 400, "there twice"},
		{"broken query", "POST", "/v1/policy?name=%zz", "x", 400, "invalid URL escape"},
		{"revision is no number", "GET", "/v1/policy?revision=one", "", 400, "is not a number"},
		{"revision is a path", "GET", "/v1/policy?revision=../1", "", 400, "is not a number"},
		{"rollback without JSON", "POST", "/v1/rollback", "1.", 400, "bad_request"},
		{"rollback too large", "POST", "/v1/rollback", strings.Repeat(" ", maxRollback+1), 413, "too_large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://p"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := raw.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tc.status || !strings.Contains(string(b), tc.want) {
				t.Errorf("status %d, %s, %v", resp.StatusCode, b, err)
			}
		})
	}
}
