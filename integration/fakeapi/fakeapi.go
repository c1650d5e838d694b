// SPDX-License-Identifier: Apache-2.0

// Package fakeapi implements the model APIs that agents use, with streaming and tool calls:
// Anthropic's messages, OpenAI's responses, chat completions and embeddings, and Gemini's
// generateContent. The model behind them performs one task with the tools that the agent
// offers: it reads a file and changes a word that only the file contains. The package keeps
// every request as it was received.
package fakeapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxBody is the largest request body in bytes. An agent's tools and prompts are about 200
// KiB.
const maxBody = 16 << 20

// Heard is one request as it was received.
type Heard struct {
	Method, Host, Path, Query string
	Header                    http.Header
	Body                      []byte
	// Answered is the status of the response.
	Answered int
}

// Holds reports whether any part of the request contains text.
func (h *Heard) Holds(text string) bool {
	if strings.Contains(h.Path+"?"+h.Query, text) || bytes.Contains(h.Body, []byte(text)) {
		return true
	}
	for name, values := range h.Header {
		if strings.Contains(name+strings.Join(values, "\n"), text) {
			return true
		}
	}
	return false
}

// Key returns the key of the request, wherever its API puts it.
func (h *Heard) Key() string {
	switch scheme, key, _ := strings.Cut(h.Header.Get("Authorization"), " "); strings.ToLower(scheme) {
	case "bearer", "token":
		return key
	}
	for _, name := range []string{"X-Api-Key", "X-Goog-Api-Key"} {
		if k := h.Header.Get(name); k != "" {
			return k
		}
	}
	return ""
}

// Server implements the APIs of all hosts that resolve to it.
type Server struct {
	// Key is the only accepted key; requests with another one get 401.
	Key string
	// File is the file to change, in the spelling that the agent's tools need.
	File string
	// Last is called before the model says that it is done, while the agent waits.
	Last func()

	mu    sync.Mutex
	heard []Heard
	last  sync.Once
}

// Heard returns the requests so far.
func (s *Server) Heard() []Heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.heard)
}

// ServeHTTP responds as the API to which the path belongs.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h := Heard{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header.Clone(), Body: body}
	a := &answer{w: w, h: &h, s: s}
	if err := a.give(); err != nil {
		h.Answered = http.StatusBadRequest
		http.Error(w, err.Error(), h.Answered)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, h)
}

// answer is one response in progress.
type answer struct {
	w http.ResponseWriter
	h *Heard
	s *Server
}

var errPath = errors.New("no such path")

func (a *answer) give() error {
	a.h.Answered = http.StatusOK
	if a.h.Key() != a.s.Key {
		a.refuse(http.StatusUnauthorized, "authentication_error", "invalid key")
		return nil
	}
	switch path := a.h.Path; {
	case a.github():
		return nil
	case a.h.Method == http.MethodGet && strings.HasSuffix(path, "/models"):
		a.whole(map[string]any{"object": "list", "data": []any{map[string]any{"id": "fake", "object": "model", "created": 1, "owned_by": "fake", "type": "model", "display_name": "Fake"}}})
		return nil
	case a.h.Method != http.MethodPost:
	case strings.HasSuffix(path, "/v1/messages"):
		return a.messages()
	case strings.HasSuffix(path, "/messages/count_tokens"):
		a.whole(map[string]any{"input_tokens": 7})
		return nil
	case strings.HasSuffix(path, "/responses"):
		return a.responses()
	case strings.HasSuffix(path, "/chat/completions"):
		return a.chat()
	case strings.HasSuffix(path, "/embeddings"):
		return a.embeddings()
	case strings.Contains(path, ":generateContent"), strings.Contains(path, ":streamGenerateContent"):
		return a.gemini()
	case strings.HasSuffix(path, ":countTokens"):
		a.whole(map[string]any{"totalTokens": 7})
		return nil
	}
	a.refuse(http.StatusNotFound, "not_found_error", errPath.Error())
	return nil
}

func (a *answer) refuse(status int, kind, message string) {
	a.h.Answered = status
	a.w.Header().Set("Content-Type", "application/json")
	a.w.WriteHeader(status)
	_ = json.NewEncoder(a.w).Encode(map[string]any{"type": "error", "error": map[string]any{"type": kind, "message": message, "code": status}})
}

// whole sends one document.
func (a *answer) whole(doc any) {
	a.w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(a.w).Encode(doc)
}

// event sends one event of a stream, with a name if the API uses names.
func (a *answer) event(name string, doc any) {
	a.w.Header().Set("Content-Type", "text/event-stream")
	text, ok := doc.(string)
	if !ok {
		encoded, err := json.Marshal(doc)
		if err != nil {
			panic(err) // only our own literals are encoded
		}
		text = string(encoded)
	}
	if name != "" {
		fmt.Fprintf(a.w, "event: %s\n", name)
	}
	fmt.Fprintf(a.w, "data: %s\n\n", text)
	_ = http.NewResponseController(a.w).Flush()
}

// id returns an ID that no other call has.
func (a *answer) id() string { return strconv.Itoa(len(a.s.Heard())) }

func (a *answer) decode(into any) error {
	if err := json.Unmarshal(a.h.Body, into); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}
