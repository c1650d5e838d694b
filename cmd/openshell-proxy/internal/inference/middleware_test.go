// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

func TestMiddleware(t *testing.T) {
	tests := []struct {
		name   string
		change func(context.Context, []byte) ([]byte, error)
		status int
		sent   string
	}{
		{"changes", func(_ context.Context, b []byte) ([]byte, error) {
			return bytes.Replace(b, []byte("secret"), []byte("[REDACTED]"), 1), nil
		}, 200, `{"model":"m","x":"[REDACTED]"}`},
		{"refuses", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("reason") }, 403, ""},
		{"breaks", func(context.Context, []byte) ([]byte, error) { return []byte(`{"a":1,"a":2}`), nil }, 403, ""},
		{"nothing", func(context.Context, []byte) ([]byte, error) { return nil, nil }, 403, ""},
		{"huge", func(context.Context, []byte) ([]byte, error) { return make([]byte, MaxRequest+1), nil }, 403, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t, replying(200, `{}`))
			s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}, Middleware: tt.change})
			status, body := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m","x":"secret"}`)
			if status != tt.status {
				t.Fatalf("%d %s", status, body)
			}
			mustNotContain(t, "the answer", body, "reason")
			if tt.sent == "" && b.count() != 0 || tt.sent != "" && b.last(t).body != tt.sent {
				t.Errorf("backend got %v", b.seen)
			}
		})
	}
}
