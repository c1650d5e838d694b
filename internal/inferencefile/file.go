// SPDX-License-Identifier: Apache-2.0

// Package inferencefile reads and writes the operator's file of the backends behind
// inference.local. The file names providers and contains no credentials.
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

// DefaultFile is the path of the file unless the operator configures another.
const DefaultFile = "/etc/openshell/inference.yaml"

const (
	// MaxSize is the largest size of the file in bytes.
	MaxSize = 1 << 20
	// MaxRoutes is the largest number of routes.
	MaxRoutes = 64
)

// Dialects are the APIs that a backend may have.
var Dialects = []string{"openai", "anthropic", "bedrock", "gemini", "ollama", "nvidia", "vertex-claude"}

// File is the content of the file.
type File struct {
	Routes []Route `yaml:"routes" json:"routes"`
	Budget Budget  `yaml:"budget,omitempty" json:"budget"`
}

// Route is a backend with the requests that are sent to it.
type Route struct {
	Name string `yaml:"name" json:"name"`
	// Dialect is one of [Dialects]. BaseURL is the base URL as the SDK of the dialect
	// expects it. Both are required.
	Dialect string `yaml:"dialect" json:"dialect"`
	BaseURL string `yaml:"base_url" json:"base_url"`
	// Provider is the name of the provider with the credential; empty for a backend without
	// one. Credential is the name of the credential, if the provider has several.
	Provider   string `yaml:"provider,omitempty" json:"provider,omitempty"`
	Credential string `yaml:"credential,omitempty" json:"credential,omitempty"`
	// Region is the AWS region for which requests are signed. It is needed only if the URL
	// does not contain it.
	Region string `yaml:"region,omitempty" json:"region,omitempty"`
	// Model is the name of the model in requests to the backend. If it is empty, the name
	// in the client's request is kept.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// Models and Paths select the requests for the route. A route without either gets the
	// requests that no other route selects.
	Models  []string          `yaml:"models,omitempty" json:"models,omitempty"`
	Paths   []string          `yaml:"paths,omitempty" json:"paths,omitempty"`
	Aliases map[string]string `yaml:"aliases,omitempty" json:"aliases,omitempty"`
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	Weight  int               `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Reserve is true for a route that gets only requests for which another route failed.
	Reserve            bool     `yaml:"reserve,omitempty" json:"reserve,omitempty"`
	Fallbacks          []string `yaml:"fallbacks,omitempty" json:"fallbacks,omitempty"`
	TimeoutSeconds     int      `yaml:"timeout_seconds,omitempty" json:"timeout_seconds,omitempty"`
	IdleTimeoutSeconds int      `yaml:"idle_timeout_seconds,omitempty" json:"idle_timeout_seconds,omitempty"`
}

// Budget limits the requests of one sandbox. 0 means no limit; negative values are an
// error.
type Budget struct {
	RequestsPerMinute int64 `yaml:"requests_per_minute,omitempty" json:"requests_per_minute,omitempty"`
	TokensPerMinute   int64 `yaml:"tokens_per_minute,omitempty" json:"tokens_per_minute,omitempty"`
	TotalRequests     int64 `yaml:"total_requests,omitempty" json:"total_requests,omitempty"`
	TotalTokens       int64 `yaml:"total_tokens,omitempty" json:"total_tokens,omitempty"`
}

// namePattern is compiled at first use: the runtime and the proxy import this package, and
// most sandboxes have no routes.
var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`) })

// Parse parses and validates a file. name is used in error messages. Unknown keys are
// errors.
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
			return fmt.Errorf("routes[%d]: name %q is not a valid name, or occurs twice", i, r.Name)
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
		return errors.New("budget: limits may not be negative")
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
		return errors.New("base_url: must not have a user, a query or a fragment")
	case r.Provider != "" && u.Scheme != "https":
		return errors.New("base_url: a credential needs https")
	case r.Weight < 0 || r.TimeoutSeconds < 0 || r.IdleTimeoutSeconds < 0:
		return errors.New("weight, timeout_seconds and idle_timeout_seconds may not be negative")
	}
	return nil
}

// Load reads the file. A missing file has no routes.
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

// Save replaces the file atomically.
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
