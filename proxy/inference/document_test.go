// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"fmt"
	"strings"
	"testing"
)

// A key is found twice however many are between.
func TestDuplicateKeysOfLargeObjects(t *testing.T) {
	object := func(n int, extra string) string {
		var b strings.Builder
		b.WriteString(`{"model":"m"`)
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":{"x":[%d]}`, i, i)
		}
		return b.String() + extra + "}"
	}
	for _, n := range []int{1, 14, 15, 16, 17, 18, 40, 500} {
		if _, err := parseDocument([]byte(object(n, ""))); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
		for _, twice := range []string{`,"model":"evil"`, `,"k0":1`, fmt.Sprintf(`,"k%d":1`, n-1), `,"new":1,"new":2`} {
			for _, raw := range []string{object(n, twice), `{"deep":[` + object(n, twice) + `]}`} {
				if _, err := parseDocument([]byte(raw)); err == nil {
					t.Errorf("%d keys and %s: taken", n, twice)
				}
			}
		}
	}
	if _, err := parseDocument([]byte(object(MaxMembers, ""))); err == nil {
		t.Error("more members than the limit: taken")
	}
	if _, err := parseDocument([]byte(`{"x":` + object(5*MaxMembers, "") + `}`)); err != nil {
		t.Errorf("many members further in: %v", err)
	}
}

// The same key in two objects is no duplicate, also where a set of keys is used anew.
func TestSameKeyInManyObjects(t *testing.T) {
	one := `{"role":"user","content":"x","a":1,"b":{"a":1,"role":2}}`
	raw := `{"model":"m","messages":[` + strings.Repeat(one+",", 50) + one + `],"role":{"model":1}}`
	if _, err := parseDocument([]byte(raw)); err != nil {
		t.Error(err)
	}
}

func TestFramesAreWholeAtTheirEndOnly(t *testing.T) {
	all := strings.Join(invokeParts, "")
	bad := []byte(invokeParts[0])
	bad[5] ^= 1 // a length that its checksum does not have
	for name, tt := range map[string]struct {
		in   string
		want bool
	}{
		"whole":                  {all, true},
		"and a part of a frame":  {all + invokeParts[0][:5], false},
		"and a frame's head":     {all + invokeParts[0][:20], false},
		"and a bad checksum":     {all + string(bad), false},
		"and more":               {all + invokeParts[0], true},
		"an exception":           {string(frame(map[string]string{":message-type": "exception"}, bedrockError("x"))), true},
		"nothing":                {"", false},
		"an event without usage": {invokeParts[0], false},
	} {
		o := newObserver(endMetrics)
		f := &frames{o: o, w: o.walker()}
		f.feed([]byte(tt.in))
		if f.whole() != tt.want {
			t.Errorf("%s: whole is %v", name, !tt.want)
		}
		if event := f.cut("why"); (event == nil) != (f.at != 0 || f.broken) {
			t.Errorf("%s: cut gives %q", name, event)
		}
	}
}

func TestRequestsThatAreNotTaken(t *testing.T) {
	b := newBackend(t, replying(200, `{}`))
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}})
	if status, body := s.ask(t, "POST", "/v1/embeddings", `{"model":"m"}`, "Content-Encoding", "gzip"); status != 415 {
		t.Errorf("compressed: %d %s", status, body)
	}
	if status, body := s.ask(t, "GET", "/v1/models", `{"model":"m"}`); status != 400 {
		t.Errorf("a GET with a body: %d %s", status, body)
	}
	if status, body := s.ask(t, "POST", "/v1/embeddings", `{"input":"x"}`); status != 400 {
		t.Errorf("no model: %d %s", status, body)
	}
	s.router.exchanges.Add(MaxExchanges)
	if status, body := s.ask(t, "POST", "/v1/embeddings", `{"model":"m"}`); status != 503 {
		t.Errorf("too many at once: %d %s", status, body)
	}
	s.record(t, 4)
	if n := s.router.exchanges.Load(); n != MaxExchanges {
		t.Errorf("%d exchanges are left", n-MaxExchanges)
	}
	if b.count() != 0 {
		t.Errorf("backend got %v", b.seen)
	}
}
