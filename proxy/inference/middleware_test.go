// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/proxy/middleware"
)

func TestMiddleware(t *testing.T) {
	did := []decisionlog.Middleware{{Name: "m", Changed: true}}
	answer := func(body []byte, err error) Change {
		return func(*http.Request, []byte) ([]byte, http.Header, []decisionlog.Middleware, error) {
			return body, nil, did, err
		}
	}
	tests := []struct {
		name   string
		change Change
		status int
		sent   string
		says   string
	}{
		{"changes", func(_ *http.Request, b []byte) ([]byte, http.Header, []decisionlog.Middleware, error) {
			return bytes.Replace(b, []byte("secret"), []byte("[REDACTED]"), 1), http.Header{"X-Openshell-Middleware-Tag": {"t"}}, did, nil
		}, 200, `{"model":"m","x":"[REDACTED]"}`, "{}"},
		{"denies", answer(nil, &middleware.DeniedError{Middleware: "m", Code: "content_match"}), 403, "", "denied by middleware m: content_match"},
		{"fails", answer(nil, &middleware.FailedError{Middleware: "m", Code: "reason"}), 403, "", "could not be processed by the policy's middleware"},
		{"has no room", answer(nil, middleware.ErrBusy), 503, "", "too many requests wait"},
		{"other error", answer(nil, errors.New("reason")), 403, "", "could not be processed"},
		{"breaks", answer([]byte(`{"a":1,"a":2}`), nil), 403, "", "could not be processed"},
		{"nothing", answer(nil, nil), 403, "", "could not be processed"},
		{"huge", answer(make([]byte, MaxRequest+1), nil), 403, "", "could not be processed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t, replying(200, `{}`))
			s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}, Change: tt.change})
			status, body := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m","x":"secret"}`)
			if status != tt.status || !strings.Contains(body, tt.says) {
				t.Fatalf("%d %s", status, body)
			}
			mustNotContain(t, "the answer", body, "reason")
			if tt.sent == "" && b.count() != 0 || tt.sent != "" && b.last(t).body != tt.sent {
				t.Errorf("backend got %v", b.seen)
			}
			if tt.sent != "" && b.last(t).header.Get("X-Openshell-Middleware-Tag") != "t" {
				t.Errorf("backend got %v", b.last(t).header)
			}
			if u := s.record(t, 1); !cmp.Equal(u.Middlewares, did) {
				t.Errorf("recorded %+v", u)
			}
		})
	}
}

// A GET has no body, and is shown all the same.
func TestMiddlewareSeesGET(t *testing.T) {
	for _, tt := range []struct {
		body   []byte
		err    error
		status int
	}{{nil, nil, 200}, {nil, &middleware.DeniedError{}, 403}, {[]byte("{}"), nil, 403}} {
		b := newBackend(t, replying(200, `{}`))
		seen := ""
		s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}, Change: func(r *http.Request, _ []byte) ([]byte, http.Header, []decisionlog.Middleware, error) {
			seen = r.Method + r.URL.Path
			return tt.body, nil, nil, tt.err
		}})
		if status, body := s.ask(t, "GET", "/v1/models", ""); status != tt.status || seen != "GET/v1/models" {
			t.Errorf("%d %s, seen %s", status, body, seen)
		}
	}
}
