// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func decode(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return out
}

// What is sent is the same document but for the model, and the same bytes around it.
func FuzzModel(f *testing.F) {
	for _, s := range []string{
		`{"model":"a"}`, ` {"x":1, "model" : "a" , "y":[{"model":"b"}]} `, `{}`, `{ }`, `{"messages":[{"content":"\"model\":\"x\""}]}`,
		`{"mod\u0065l":"a"}`, `{"a":{"model":1},"b":"}","c":"\\\""}`, `{"n":1e400,"m":-0.0}`, `{"":"","stream":true}`, `[]`, `{"a":1,"a":2}`,
		`{"model":"a","context_management":{},"z":[1,2,{"q":null}] ,"anthropic_version":"x"}`,
	} {
		f.Add([]byte(s), "real-model:1")
	}
	f.Fuzz(func(t *testing.T, raw []byte, model string) {
		if !validModel(model) {
			return
		}
		in := bytes.Clone(raw)
		d, err := parseDocument(in)
		if err != nil {
			return
		}
		want := decode(t, raw)
		if _, err := d.text("model"); err != nil {
			return
		}
		want["model"] = model
		out := bytes.Join(d.withModel(model), nil)
		if got := decode(t, out); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q", raw, out)
		}
		if again, err := parseDocument(out); err != nil {
			t.Fatalf("%q became %q: %v", raw, out, err)
		} else if m, err := again.text("model"); err != nil || m != model {
			t.Fatalf("%q became %q: %q %v", raw, out, m, err)
		}
		quoted := quote(model)
		at := bytes.Index(out, quoted)
		for ; at >= 0; at += 1 + bytes.Index(out[at+1:], quoted) {
			head, tail := out[:at], out[at+len(quoted):]
			if bytes.HasPrefix(raw, head) && bytes.HasSuffix(raw, tail) || bytes.HasSuffix(raw, bytes.TrimPrefix(tail, []byte(","))) {
				break
			}
			if !bytes.Contains(out[at+1:], quoted) {
				t.Fatalf("%q became %q: more than the model was changed", raw, out)
			}
		}
		delete(want, "model")
		delete(want, "context_management")
		want["anthropic_version"] = "vertex-2023-10-16"
		out = bytes.Join(d.forVertex(), nil)
		if got := decode(t, out); !reflect.DeepEqual(got, want) {
			t.Fatalf("for Vertex %q became %q", raw, out)
		}
		if !bytes.Equal(in, raw) {
			t.Fatal("the caller's bytes were changed")
		}
	})
}

// reference is the allow-list once more, as an expression.
var reference = regexp.MustCompile(`^(?:` +
	`POST /v1/(?:chat/completions|completions|responses|embeddings|messages|messages/count_tokens)|` +
	`GET /v1/models(?:/[A-Za-z0-9](?:[-._:@+A-Za-z0-9]|%3[Aa])*)?|` +
	`POST /model/[A-Za-z0-9](?:[-._:@+A-Za-z0-9]|%3[Aa])*/(?:invoke|invoke-with-response-stream|converse|converse-stream)|` +
	`POST /v1(?:beta)?/models/[A-Za-z0-9][-._@+A-Za-z0-9]*:(?:generateContent|streamGenerateContent|countTokens)|` +
	`POST /api/(?:chat|generate|embed|embeddings|show)|GET /api/(?:tags|version)` +
	`)$`)

func FuzzPath(f *testing.F) {
	for _, e := range endpoints {
		f.Add(e.method, strings.Replace(e.pattern, modelPart, "a.b-c%3A0", 1))
		f.Add(e.method, strings.Replace(e.pattern, modelPart, "gpt", 1))
	}
	for _, n := range notAllowed {
		f.Add(n.method, n.path)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		_, model, ok := match(method, path)
		want := reference.MatchString(method+" "+path) && !strings.Contains(path, "\n") && !strings.Contains(method, "\n")
		if ok != want && len(path) < MaxModel {
			t.Fatalf("%q %q: matched %v, want %v", method, path, ok, want)
		}
		if ok && strings.ContainsAny(model, "/\\?#%;") {
			t.Fatalf("%q %q: model %q", method, path, model)
		}
	})
}

// Whatever a backend streams is followed without a panic, the same in parts of any
// size, and is whole only where it is whole as one.
func FuzzFollow(f *testing.F) {
	for _, s := range streams {
		f.Add([]byte(strings.Join(s.parts, "")), uint8(7))
	}
	f.Add(frame(nil, []byte("{")), uint8(1))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, uint8(3))
	make := map[string]func() (*observer, stream){
		"sse": func() (*observer, stream) {
			o := newObserver(endMessage)
			return o, &sse{o: o, w: o.walker(), dialect: Anthropic, atLine: true, atEvent: true}
		},
		"lines": func() (*observer, stream) {
			o := newObserver(endDone)
			return o, &lines{o: o, w: o.walker(), atLine: true}
		},
		"frames": func() (*observer, stream) {
			o := newObserver(endMetrics)
			return o, &frames{o: o, w: o.walker()}
		},
		"array": func() (*observer, stream) {
			o := newObserver(endFinish)
			return o, &array{o: o, w: o.walker()}
		},
	}
	f.Fuzz(func(t *testing.T, p []byte, size uint8) {
		for name, fresh := range make {
			o1, s1 := fresh()
			s1.feed(p)
			o2, s2 := fresh()
			n := max(1, int(size))
			for rest := p; len(rest) > 0; rest = rest[min(n, len(rest)):] {
				s2.feed(rest[:min(n, len(rest))])
			}
			if s1.whole() != s2.whole() || o1.tokens != o2.tokens {
				t.Fatalf("%s: %v %+v at once, %v %+v in parts of %d", name, s1.whole(), o1.tokens, s2.whole(), o2.tokens, n)
			}
			s1.cut("x")
		}
	})
}
