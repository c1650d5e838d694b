// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
)

const token = "sk-0123456789abcdef_XYZ"

func TestRedact(t *testing.T) {
	for _, tc := range []struct {
		name, kind, body, want string
		findings               int
	}{
		{"nothing", "text/plain", "nothing to find, sk-short", "nothing to find, sk-short", 0},
		{"empty", "", "", "", 0},
		{"text", "text/plain", "a " + token + ",\nb " + token, "a [REDACTED],\nb [REDACTED]", 2},
		{"json", "application/json", ` {"k" : "x ` + token + `", "n":[1, 2.50,"é\u00e9"]} `, ` {"k" : "x [REDACTED]", "n":[1, 2.50,"é\u00e9"]} `, 1},
		{"json that says it is text", "text/plain", `{"a":"s\u006b-0123456789abcdef"}`, `{"a":"[REDACTED]"}`, 1},
		{"escaped", "application/json", `{"a":"\u0073\u006B\u002d0123456789abcdef\n\"q\""}`, `{"a":"[REDACTED]\n\"q\""}`, 1},
		{"key", "application/json", `{"` + token + `":1}`, `{"[REDACTED]":1}`, 1},
		{"number", "application/json", `{"card":4111111111111111,"n":-1.5e3}`, `{"card":"[REDACTED]","n":-1.5e3}`, 1},
		{"quotes", "application/json", `{"a":"<\"4111\">"}`, `{"a":"[REDACTED]"}`, 1},
		{"lines of json", "application/x-ndjson", `{"a":"` + token + `"}` + "\n" + `{"b":"s\u006b-0123456789abcdef"}` + "\n", `{"a":"[REDACTED]"}` + "\n" + `{"b":"[REDACTED]"}` + "\n", 2},
		{"json that is none", "application/json", `{"a":"` + token + `",}`, `{"a":"[REDACTED]",}`, 1},
		{"form", "application/x-www-form-urlencoded", "a=1&k=sk%2D0123456789abcdef&a=%20&" + token + "==&", "a=1&k=%5BREDACTED%5D&a=%20&%5BREDACTED%5D==&", 2},
		{"form that is broken", "application/x-www-form-urlencoded; charset=utf-8", "a=%zz&b=%zz" + token, "a=%zz&b=%25zz%5BREDACTED%5D", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := newRedactor([]string{`4[0-9]{15}`, `<"\d+">`})
			if err != nil {
				t.Fatal(err)
			}
			req := &Request{Header: http.Header{"Content-Type": {tc.kind}}, Body: []byte(tc.body)}
			n, err := r.run(t.Context(), req, nil)
			if err != nil || n != tc.findings || string(req.Body) != tc.want {
				t.Errorf("%d %v\ngot  %s\nwant %s", n, err, req.Body, tc.want)
			}
		})
	}
}

func TestRedactFails(t *testing.T) {
	r, err := newRedactor(nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, req := range map[code]*Request{
		codeEncoded: {Header: http.Header{"Content-Encoding": {"gzip"}}, Body: []byte("x")},
		codeNotText: {Body: []byte("\xff" + token)},
	} {
		if _, err := r.run(t.Context(), req, nil); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	identity := &Request{Header: http.Header{"Content-Encoding": {"Identity"}}, Body: []byte(token)}
	if n, err := r.run(t.Context(), identity, nil); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}

// A body may be looked at twice: there is nothing left to find, JSON stays JSON, and
// what holds nothing stays as it is, byte by byte.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{token, `{"a":"s\u006b-0123456789abcdef"}`, `[1,2]` + token, `"\\"`, `{"a":{"b":[null,true,"` + token + `"]}}`, "1 2 3", `"\ud800"`, "a=b&c=" + token} {
		f.Add(s, "application/json")
		f.Add(s, "application/x-www-form-urlencoded")
	}
	r, err := newRedactor([]string{`4[0-9]{15}`})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, kind string) {
		req := &Request{Header: http.Header{"Content-Type": {kind}}, Body: []byte(body)}
		n, err := r.run(t.Context(), req, nil)
		if (err != nil || n == 0) && string(req.Body) != body {
			t.Fatalf("changed without a finding: %q to %q", body, req.Body)
		}
		if err != nil {
			return
		}
		if json.Valid([]byte(body)) && !strings.HasPrefix(kind, "application/x-www-form-urlencoded") && !json.Valid(req.Body) {
			t.Fatalf("%q became %q", body, req.Body)
		}
		once := string(req.Body)
		if n, err := r.run(t.Context(), req, nil); n != 0 || err != nil {
			t.Fatalf("%q became %q, in which are %d more (%v)", body, once, n, err)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	r, err := newRedactor(nil)
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(`{"messages":[` + strings.Repeat(`{"role":"user","content":"what a long conversation, line by line\nand on"},`, 10_000) + `{}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := r.run(b.Context(), &Request{Body: body}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
