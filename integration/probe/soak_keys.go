// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// keys returns what agents do: requests with the placeholder TEST_API_KEY, and requests to
// models at inference.local, whose responses have as many words as requested.
func keys() map[string]traffic {
	by := http.ProxyFromEnvironment
	return map[string]traffic{
		"header":             bound(exchanger(by, false, true), ""),
		"header, HTTP/2":     bound(exchanger(by, true, true), ""),
		"header, led there":  bound(exchanger(nil, false, false), ""),
		"body":               bound(exchanger(by, false, true), `{"key":"%s","n":1}`),
		"body, HTTP/2":       bound(exchanger(by, true, true), `{"key":"%s","n":2}`),
		"somebody else's":    foreignKey(exchanger(by, false, true)),
		"model":              words(exchanger(by, true, true), "https", false),
		"model, streamed":    words(exchanger(by, true, true), "https", true),
		"model, HTTP/1":      words(exchanger(nil, false, true), "https", true),
		"model, without TLS": words(exchanger(by, false, false), "http", true),
	}
}

// bound sends the placeholder to the destination of its key, in a field or in a long body.
// The response says what arrived, in a form that the sandbox may see.
func bound(send exchange, body string) traffic {
	key := os.Getenv("TEST_API_KEY")
	return func(ctx context.Context, n int) error {
		var status int
		var got string
		var err error
		to := fmt.Sprintf("https://api.test/v1/%d", n)
		if body == "" {
			status, got, err = send(ctx, http.MethodGet, to, "", "X-Api-Key", key)
		} else {
			text := fmt.Sprintf(body, key)
			text = strings.Repeat(" ", n*n%(100<<10)) + text
			status, got, err = send(ctx, http.MethodPost, to, text, "Content-Type", "application/json")
		}
		if err == nil && (status != http.StatusOK || !strings.Contains(got, fmt.Sprintf("heard /v1/%d ", n)) || strings.Contains(got, "sk-")) {
			err = fmt.Errorf("%s: %d %.300q", to, status, got)
		}
		return err
	}
}

func foreignKey(send exchange) traffic {
	return func(ctx context.Context, _ int) error {
		status, got, err := send(ctx, http.MethodGet, "https://api.test/v1/foreign", "", "X-Api-Key", "sk-attacker")
		if err == nil && (status != http.StatusForbidden || !strings.Contains(got, "foreign_credential")) {
			err = fmt.Errorf("%d %.300q", status, got)
		}
		return err
	}
}

// words requests some words from a model.
func words(send exchange, scheme string, stream bool) traffic {
	return func(ctx context.Context, n int) error {
		n %= 100
		var want strings.Builder
		for i := range n {
			if stream {
				fmt.Fprintf(&want, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word%d \"}}]}\n\n", i)
			} else {
				fmt.Fprintf(&want, "word%d ", i)
			}
		}
		body := fmt.Sprintf(`{"model":"any","stream":%t,"messages":[{"role":"user","content":"%d"}]}`, stream, n)
		status, got, err := send(ctx, http.MethodPost, scheme+"://inference.local/v1/chat/completions", body, "Content-Type", "application/json", "Authorization", "Bearer sk-callers")
		whole := strings.Contains(got, want.String()) && (!stream || strings.HasPrefix(got, want.String()) && strings.HasSuffix(got, "data: [DONE]"))
		if err == nil && (status != http.StatusOK || !whole) {
			err = fmt.Errorf("%d words: %d %.300q", n, status, got)
		}
		return err
	}
}
