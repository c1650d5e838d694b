// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/policy"
)

// Dialect is an API that a backend speaks.
type Dialect string

// The dialects. A caller speaks one of OpenAI, Anthropic, Bedrock, Gemini, Ollama.
const (
	OpenAI       Dialect = "openai"
	Anthropic    Dialect = "anthropic"
	Bedrock      Dialect = "bedrock"
	Gemini       Dialect = "gemini"
	Ollama       Dialect = "ollama"
	NVIDIA       Dialect = "nvidia"        // OpenAI's, with its own headers
	VertexClaude Dialect = "vertex-claude" // Anthropic's, wrapped in Google's
)

// caller is the dialect of the callers that a backend of d can serve.
func (d Dialect) caller() (Dialect, bool) {
	switch d {
	case OpenAI, Anthropic, Bedrock, Gemini, Ollama:
		return d, true
	case NVIDIA:
		return OpenAI, true
	case VertexClaude:
		return Anthropic, true
	}
	return "", false
}

// AuthKind is how a credential is put into a request.
type AuthKind int

// The kinds of authentication.
const (
	NoAuth     AuthKind = iota
	BearerAuth          // Authorization: Bearer VALUE
	HeaderAuth          // Name: VALUE
	QueryAuth           // ?Name=VALUE
	SignedAuth          // whatever Sign adds
)

// Auth is how a backend is authenticated to.
type Auth struct {
	Kind  AuthKind
	Name  string
	Value secret.Secret
	// Expires is when Value cannot be sent any more; zero is never. Answers are searched
	// for it also afterwards.
	Expires time.Time
	// Sign signs a request whose body it is given, as AWS asks for.
	Sign func(req *http.Request, body []byte) error
}

// Match is what a route takes. The zero value takes what no other route matches.
type Match struct {
	// Models are names in which * stands for any text and ? for one character.
	Models []string
	// Paths are of the callers' API, as /v1/embeddings or /model/{model}/invoke.
	Paths []string
}

// Route is a backend, and which requests go to it.
type Route struct {
	Name    string
	Dialect Dialect
	// BaseURL is what the dialect's own SDK takes as base URL: for OpenAI with the
	// version (https://api.example.com/v1), for the others with or without; for
	// VertexClaude up to and with publishers/anthropic/models.
	BaseURL *url.URL
	Auth    Auth
	// Model is what the backend is asked for. Empty keeps the caller's.
	Model string
	Match Match
	// Aliases are callers' names for models, and the backend's. They match like
	// Match.Models and win over Model.
	Aliases map[string]string
	// DefaultHeaders are added where the caller has not set them.
	DefaultHeaders map[string]string
	// Weight is the route's share of the requests that it matches as well as
	// others do. 0 is 1.
	Weight int
	// Reserve is set for a route that takes only what others fall back to it with.
	Reserve bool
	// Fallbacks are the routes to try, in order, when this one's backend cannot be
	// reached, is overloaded or fails before it has answered.
	Fallbacks []string
	// Timeout bounds an answer that is not streamed, IdleTimeout each wait of one
	// that is. 0 is the default.
	Timeout, IdleTimeout time.Duration
}

// route is a checked Route.
type route struct {
	Route
	caller    Dialect
	models    *regexp.Regexp // nil matches every model, as a default
	fallbacks []*route
	weight    float64
}

var errNoBackend = errors.New("no base URL")

func compile(r Route) (*route, error) {
	caller, ok := r.Dialect.caller()
	if !ok {
		return nil, fmt.Errorf("unknown dialect %q", r.Dialect)
	}
	if err := checkBase(r.BaseURL); err != nil {
		return nil, err
	}
	if err := r.Auth.check(); err != nil {
		return nil, err
	}
	if r.Auth.Kind != NoAuth && r.BaseURL.Scheme != "https" {
		return nil, fmt.Errorf("base URL %s: a credential needs https", r.BaseURL)
	}
	if r.Weight < 0 || r.Timeout < 0 || r.IdleTimeout < 0 {
		return nil, errors.New("weight, timeout and idle timeout may not be negative")
	}
	for _, m := range append([]string{r.Model}, values(r.Aliases)...) {
		if !validModel(m) && m != "" {
			return nil, fmt.Errorf("model %q is not a model's name", m)
		}
	}
	for _, p := range r.Match.Paths {
		if !knownPath(caller, p) {
			return nil, fmt.Errorf("path %q is not one of the %s API's", p, caller)
		}
	}
	for k, v := range r.DefaultHeaders {
		if !httpguts.ValidHeaderFieldName(k) || !httpguts.ValidHeaderFieldValue(v) || reserved[textproto.CanonicalMIMEHeaderKey(k)] {
			return nil, fmt.Errorf("default header %q is not one that a route may set", k)
		}
	}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.IdleTimeout == 0 {
		r.IdleTimeout = DefaultIdleTimeout
	}
	models, err := globs(r.Match.Models)
	if err != nil {
		return nil, err
	}
	return &route{Route: r, caller: caller, models: models, weight: float64(max(1, r.Weight))}, nil
}

func checkBase(u *url.URL) error {
	switch {
	case u == nil || u.Host == "":
		return errNoBackend
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("base URL's scheme %q is not https or http", u.Scheme)
	case u.User != nil || u.Fragment != "":
		return errors.New("base URL with a user or a fragment; a credential belongs in the route's authentication")
	case strings.EqualFold(u.Hostname(), policy.RouterHost):
		return fmt.Errorf("base URL's host is %s, the router itself", policy.RouterHost)
	case strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/../") || strings.Contains(u.Path+"/", "/./"):
		return fmt.Errorf("base URL's path %q is not canonical", u.Path)
	}
	return nil
}

func (a *Auth) check() error {
	switch a.Kind {
	case NoAuth:
		if !a.Value.IsZero() || a.Sign != nil {
			return errors.New("a credential without a kind of authentication")
		}
		return nil
	case SignedAuth:
		if a.Sign == nil {
			return errors.New("signed authentication without a signer")
		}
		return nil
	case HeaderAuth:
		if !httpguts.ValidHeaderFieldName(a.Name) || framing[textproto.CanonicalMIMEHeaderKey(a.Name)] {
			return fmt.Errorf("authentication header %q is not one that can carry a credential", a.Name)
		}
	case QueryAuth:
		if a.Name == "" {
			return errors.New("authentication by query without a name")
		}
	case BearerAuth:
	default:
		return fmt.Errorf("unknown kind of authentication %d", a.Kind)
	}
	return nil
}

// globs joins patterns into one expression, nil for none.
func globs(patterns []string) (*regexp.Regexp, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	alternatives := make([]string, len(patterns))
	for i, p := range patterns {
		if p == "" || len(p) > MaxModel {
			return nil, fmt.Errorf("model pattern %q is empty or too long", p)
		}
		q := strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, `.*`)
		alternatives[i] = strings.ReplaceAll(q, `\?`, `.`)
	}
	return regexp.Compile(`\A(?:` + strings.Join(alternatives, "|") + `)\z`)
}

// modelFor is what r's backend is asked for when the caller asked for asked.
func (r *route) modelFor(asked string) string {
	if m, ok := r.Aliases[asked]; ok {
		return m
	}
	if r.Model != "" {
		return r.Model
	}
	return asked
}

// decides reports whether r's backend is asked for a model of r's choice.
func (r *route) decides(asked string) bool {
	_, ok := r.Aliases[asked]
	return ok || r.Model != ""
}

// validModel reports whether m can be a model's name.
func validModel(m string) bool {
	if m == "" || len(m) > MaxModel {
		return false
	}
	for _, c := range []byte(m) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func values(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
