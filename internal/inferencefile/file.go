// SPDX-License-Identifier: Apache-2.0

// Package inferencefile is the operator's file of the backends behind
// inference.local. It names providers, never a credential.
package inferencefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/atomicfile"
	"openshell.dev/runtime/internal/boundedfile"
)

// DefaultFile is where the routes are unless the operator says otherwise.
const DefaultFile = "/etc/openshell/inference.yaml"

const (
	// MaxSize bounds the file, in bytes.
	MaxSize = 1 << 20
	// MaxRoutes bounds the routes of a sandbox.
	MaxRoutes = 64
)

// Dialects are the APIs that a backend may speak.
var Dialects = []string{"openai", "anthropic", "bedrock", "gemini", "ollama", "nvidia", "vertex-claude"}

// File is the document.
type File struct {
	Routes []Route `yaml:"routes" json:"routes"`
	Budget Budget  `yaml:"budget,omitempty" json:"budget"`
}

// Route is a backend, and which requests go to it.
type Route struct {
	Name string `yaml:"name" json:"name"`
	// Dialect is one of Dialects; BaseURL what the dialect's own SDK takes.
	Dialect string `yaml:"dialect" json:"dialect"`
	BaseURL string `yaml:"base_url" json:"base_url"`
	// Provider brings the credential; none for a backend without one. Credential
	// names which of the provider's, if it has several.
	Provider   string `yaml:"provider,omitempty" json:"provider,omitempty"`
	Credential string `yaml:"credential,omitempty" json:"credential,omitempty"`
	// Model is what the backend is asked for; empty keeps the caller's.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// Models and Paths are what the route takes; without any it takes the rest.
	Models  []string          `yaml:"models,omitempty" json:"models,omitempty"`
	Paths   []string          `yaml:"paths,omitempty" json:"paths,omitempty"`
	Aliases map[string]string `yaml:"aliases,omitempty" json:"aliases,omitempty"`
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	Weight  int               `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Reserve routes take only what falls back to them.
	Reserve            bool     `yaml:"reserve,omitempty" json:"reserve,omitempty"`
	Fallbacks          []string `yaml:"fallbacks,omitempty" json:"fallbacks,omitempty"`
	TimeoutSeconds     int      `yaml:"timeout_seconds,omitempty" json:"timeout_seconds,omitempty"`
	IdleTimeoutSeconds int      `yaml:"idle_timeout_seconds,omitempty" json:"idle_timeout_seconds,omitempty"`
}

// Budget bounds what one sandbox may ask for; 0 is no bound.
type Budget struct {
	RequestsPerMinute int64 `yaml:"requests_per_minute,omitempty" json:"requests_per_minute,omitempty"`
	TokensPerMinute   int64 `yaml:"tokens_per_minute,omitempty" json:"tokens_per_minute,omitempty"`
	TotalRequests     int64 `yaml:"total_requests,omitempty" json:"total_requests,omitempty"`
	TotalTokens       int64 `yaml:"total_tokens,omitempty" json:"total_tokens,omitempty"`
}

// namePattern is compiled by who needs it: the runtime and the proxy start with
// this package, and few of them have routes.
var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`) })

// Parse reads and validates a file. Unknown keys are errors.
func Parse(name string, text []byte) (*File, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, MaxSize)
	}
	f := &File{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func (f *File) validate() error {
	if len(f.Routes) > MaxRoutes {
		return fmt.Errorf("%d routes; at most %d", len(f.Routes), MaxRoutes)
	}
	seen := map[string]bool{}
	for i, r := range f.Routes {
		if !namePattern().MatchString(r.Name) || seen[r.Name] {
			return fmt.Errorf("routes[%d]: name %q is no name, or there twice", i, r.Name)
		}
		seen[r.Name] = true
		if err := r.validate(); err != nil {
			return fmt.Errorf("routes[%d] %s: %w", i, r.Name, err)
		}
	}
	for _, r := range f.Routes {
		for _, n := range r.Fallbacks {
			if !seen[n] || n == r.Name {
				return fmt.Errorf("route %s: fallback %q is not another route", r.Name, n)
			}
		}
	}
	b := f.Budget
	if b.RequestsPerMinute < 0 || b.TokensPerMinute < 0 || b.TotalRequests < 0 || b.TotalTokens < 0 {
		return errors.New("budget: a bound is negative")
	}
	return nil
}

func (r *Route) validate() error {
	if !slices.Contains(Dialects, r.Dialect) {
		return fmt.Errorf("dialect %q: want one of %s", r.Dialect, strings.Join(Dialects, ", "))
	}
	u, err := url.Parse(r.BaseURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("base_url %q: want an http or https URL", r.BaseURL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("base_url: a user, a query or a fragment does not belong in it")
	case r.Provider != "" && u.Scheme != "https":
		return errors.New("base_url: a credential needs https")
	case r.Weight < 0 || r.TimeoutSeconds < 0 || r.IdleTimeoutSeconds < 0:
		return errors.New("weight, timeout_seconds and idle_timeout_seconds may not be negative")
	}
	return nil
}

// Load reads a file; one that is not there has no routes.
func Load(file string) (*File, error) {
	text, err := boundedfile.Read(file, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read inference routes: %w", err)
	}
	return Parse(file, text)
}

// Save writes the file, whole or not at all.
func (f *File) Save(file string) error {
	if err := f.validate(); err != nil {
		return err
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode inference routes: %w", err)
	}
	if err := atomicfile.Write(file, text, 0o644); err != nil {
		return fmt.Errorf("write inference routes: %w", err)
	}
	return nil
}
