// SPDX-License-Identifier: Apache-2.0

// Package control is how a sandbox's proxy is asked and told: HTTP/1.1 on a unix
// socket that it is given, in the documents of proxyapi. A policy that is loaded is
// enforced before the answer goes out, and kept as a revision that a proxy that
// starts again begins with.
//
// It does not check who speaks: whoever can open the socket, root alone, commands
// the proxy.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/netutil"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// Judge is what the control plane commands.
type Judge interface {
	// Load parses, validates, compiles and swaps; open connections are judged again
	// before it returns. The error is a *proxyapi.Failure if a static section has changed
	// or the policy cannot be used. With any error the old policy stays, unless
	// Failure.Denies says otherwise.
	Load(name string, text []byte) (revision int, err error)
	Status() proxyapi.Status
	// Metrics are the counters, as Prometheus reads them.
	Metrics() []byte
}

// Server answers on the control socket.
type Server struct {
	judge Judge
	dir   string
	http  http.Server

	// mu makes one change at a time; it also guards index.
	mu    sync.Mutex
	index *index
}

// New makes a server for j. dir holds the revisions, of which j enforces the
// newest (see Latest and First).
func New(j Judge, dir string) (*Server, error) {
	x, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	if err := x.tidy(dir); err != nil {
		return nil, err
	}
	s := &Server{judge: j, dir: dir, index: x}
	mux := http.NewServeMux()
	mux.Handle("GET "+proxyapi.PathStatus, handler(s.status))
	mux.Handle("GET "+proxyapi.PathMetrics, handler(s.metrics))
	mux.Handle("GET "+proxyapi.PathPolicy, handler(s.policy))
	mux.Handle("POST "+proxyapi.PathPolicy, handler(s.set))
	mux.Handle("GET "+proxyapi.PathPolicies, handler(s.policies))
	mux.Handle("POST "+proxyapi.PathRollback, handler(s.rollback))
	s.http = http.Server{
		Handler: mux, MaxHeaderBytes: MaxHeader, ReadHeaderTimeout: HeaderPatience, ReadTimeout: BodyPatience,
		WriteTimeout: proxyapi.RequestTimeout, IdleTimeout: BodyPatience,
	}
	return s, nil
}

// Serve answers on l until Close; it then returns nil.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(netutil.LimitListener(l, MaxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve control socket: %w", err)
}

// Close ends Serve and every connection.
func (s *Server) Close() error { return s.http.Close() }

// handler answers with what it returns: JSON, or a *proxyapi.Failure's status.
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := h(w, r)
	status := http.StatusOK
	if err != nil {
		f := failure(err)
		status, answer = statusOf[f.Code], f
	}
	if text, ok := answer.([]byte); ok {
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "application/yaml")
		}
		_, _ = w.Write(text) // the client has gone: nobody to tell
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

var statusOf = map[string]int{
	proxyapi.CodeStaticChange:  http.StatusConflict,
	proxyapi.CodeInvalidPolicy: http.StatusUnprocessableEntity,
	proxyapi.CodeBadRequest:    http.StatusBadRequest,
	proxyapi.CodeNotFound:      http.StatusNotFound,
	proxyapi.CodeTooLarge:      http.StatusRequestEntityTooLarge,
	proxyapi.CodeInternal:      http.StatusInternalServerError,
}

func failure(err error) *proxyapi.Failure {
	var (
		f     *proxyapi.Failure
		large *http.MaxBytesError
	)
	switch {
	case errors.As(err, &f):
		out := *f
		out.Detail = bounded(f.Detail)
		return &out
	case errors.As(err, &large):
		return &proxyapi.Failure{Code: proxyapi.CodeTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	}
	return &proxyapi.Failure{Code: proxyapi.CodeInternal, Detail: bounded(err.Error())}
}

// bounded keeps the first lines of what is too long.
func bounded(s string) string {
	if len(s) <= MaxDetail {
		return s
	}
	s = s[:MaxDetail]
	if i := strings.LastIndexByte(s, '\n'); i > 0 {
		s = s[:i]
	}
	return strings.ToValidUTF8(s, "") + "\n…"
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r); err != nil {
		return nil, err
	}
	return s.judge.Status(), nil
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r); err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	return s.judge.Metrics(), nil
}

func (s *Server) policies(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]proxyapi.Revision, len(s.index.Revisions))
	for i, k := range s.index.Revisions {
		out[i] = proxyapi.Revision{Revision: k.Revision, LoadedAt: k.LoadedAt, Name: k.Name, Status: proxyapi.StatusSuperseded}
	}
	if k := s.index.Refused; k != nil {
		return append(out, proxyapi.Revision{Revision: k.Revision, LoadedAt: k.LoadedAt, Name: k.Name, Status: proxyapi.StatusFailed}), nil
	}
	if len(out) > 0 {
		out[len(out)-1].Status = proxyapi.StatusLoaded
	}
	return out, nil
}

func (s *Server) policy(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r, proxyapi.ParamRevision); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	if len(s.index.Revisions) > 0 {
		n = s.index.Revisions[len(s.index.Revisions)-1].Revision
	}
	if p := r.URL.Query().Get(proxyapi.ParamRevision); p != "" {
		var err error
		if n, err = strconv.Atoi(p); err != nil {
			return nil, &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: fmt.Sprintf("%s %.20q is not a number", proxyapi.ParamRevision, p)}
		}
	} else if k := s.index.Refused; k != nil {
		return nil, &proxyapi.Failure{Code: proxyapi.CodeNotFound, Detail: fmt.Sprintf("everything is denied: revision %d is invalid; %s N asks for an older one", k.Revision, proxyapi.ParamRevision)}
	}
	_, text, err := s.revision(n)
	if err != nil {
		return nil, err
	}
	w.Header().Set(proxyapi.HeaderRevision, strconv.Itoa(n))
	return text, nil
}

// revision reads one that is kept. The caller holds mu.
func (s *Server) revision(n int) (*kept, []byte, error) {
	k := s.index.find(n)
	if k == nil {
		return nil, nil, &proxyapi.Failure{Code: proxyapi.CodeNotFound, Detail: fmt.Sprintf("revision %d is not kept", n)}
	}
	text, err := readRevision(s.dir, *k)
	return k, text, err
}

func (s *Server) set(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r, proxyapi.ParamName); err != nil {
		return nil, err
	}
	name := r.URL.Query().Get(proxyapi.ParamName)
	if bad := func(c rune) bool { return !unicode.IsPrint(c) }; len(name) > proxyapi.MaxNameLength || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return nil, &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: fmt.Sprintf("%s is longer than %d bytes or not printable", proxyapi.ParamName, proxyapi.MaxNameLength)}
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, policy.MaxSize))
	if err != nil {
		return nil, unreadable(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(name, text)
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyParams(r); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRollback))
	if err != nil {
		return nil, unreadable(err)
	}
	var to proxyapi.Loaded
	if err := json.Unmarshal(body, &to); err != nil {
		return nil, &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, text, err := s.revision(to.Revision)
	if err != nil {
		return nil, err
	}
	return s.load(k.Name, text)
}

// load makes text the policy and keeps it. The caller holds mu.
func (s *Server) load(name string, text []byte) (any, error) {
	if err := prepare(s.dir, text); err != nil {
		return nil, err
	}
	n, err := s.judge.Load(name, text)
	if err != nil {
		err = errors.Join(err, os.Remove(filepath.Join(s.dir, pendingFile)))
		var invalid *proxyapi.Failure
		if errors.As(err, &invalid) && invalid.Denies > 0 {
			if rerr := s.index.refuse(s.dir, kept{Revision: invalid.Denies, LoadedAt: time.Now().UTC(), Name: name}); rerr != nil {
				return nil, fmt.Errorf("everything is denied, but a proxy that starts again will not know it: %w; %s", rerr, invalid.Detail)
			}
		}
		return nil, err
	}
	if err := s.index.add(s.dir, kept{Revision: n, LoadedAt: time.Now().UTC(), Name: name, Size: len(text)}); err != nil {
		return nil, fmt.Errorf("revision %d is enforced, but a proxy that starts again will not know it: %w", n, err)
	}
	return proxyapi.Loaded{Revision: n}, nil
}

// unreadable is a body that did not come whole: the sender's fault.
func unreadable(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: "read the body: " + err.Error()}
}

// onlyParams refuses parameters that would be ignored.
func onlyParams(r *http.Request, known ...string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: err.Error()}
	}
	for name, values := range query {
		if !slices.Contains(known, name) || len(values) != 1 {
			return &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: fmt.Sprintf("parameter %.40q is unknown or there twice", name)}
		}
	}
	return nil
}
