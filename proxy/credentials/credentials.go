// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/proxy/memory"
)

// Endpoint is where a provider's credentials may go. Without ports it is nowhere.
type Endpoint struct {
	Host  string // a name or a pattern for Config.MatchHost
	Ports []uint16
	// Path is a prefix of whole segments; "/p/**" is what lies below /p. Empty
	// is every path.
	Path string
}

// Credential is one value of a provider under the key the sandbox knows it by.
// Several with the same key are revisions of one another.
type Credential struct {
	Key      string // [A-Za-z0-9_]+
	Value    secret.Secret
	Revision int
	// Handle, if set, is 64 lower-case hexadecimal digits under which the newest
	// revision can be asked for.
	Handle string
	// Expires is when the value ends; zero is never.
	Expires time.Time
	// Place is where the value is put in.
	Place Place
}

// Provider is a service with its credentials. One without endpoints is bound to
// those of the policy that name it.
type Provider struct {
	Name        string
	Endpoints   []Endpoint
	Credentials []Credential
	// Gone says why nothing is left of it but where it belongs and what its keys are:
	// deleted, detached. Empty is a provider that is there.
	Gone string
	// ModelAPI says that data sent under somebody else's account is lost data: requests with
	// a credential that is not the sandbox's own are refused.
	ModelAPI bool
	// AuthHeaders and AuthQuery name where the provider's credential travels,
	// besides the usual places.
	AuthHeaders, AuthQuery []string
}

// Config is what a Set needs to know of its surroundings.
type Config struct {
	// MatchHost says whether a host is one that an endpoint's pattern means. Nil
	// compares names.
	MatchHost func(pattern, host string) bool
	// AnyPlace replaces placeholders in every header, in the path and in the query,
	// whatever the Place of the credential is.
	AnyPlace bool
	// Before is the set that the sandbox had until now, nil for the first. Values that
	// only Before has are not put into requests any more, and are still masked.
	Before *Set
}

// Set is the credentials of a sandbox. It does not change; a reload makes a new
// one. The zero value has none.
type Set struct {
	opaque

	match     func(pattern, host string) bool
	anyPlace  bool
	providers []*provider
	issued    []string    // what issuedKeys returns
	past      []pastValue // the oldest first
	scrub     *scrubber   // finds every value, also the past ones; nil without any
}

type provider struct {
	Provider
	// newest are the latest revisions by key, exact all of them as a placeholder
	// names them: v3_KEY, s<hex>_KEY.
	newest, exact map[string]secret.Secret
	// expires says when those of exact and newest end, for those that do.
	expires map[string]time.Time
	places  map[string]Place // by key, without revisions and handles
}

// New checks the providers and takes them as they are now.
func New(c Config, providers []Provider) (*Set, error) {
	s := &Set{match: c.MatchHost, anyPlace: c.AnyPlace}
	if s.match == nil {
		s.match = strings.EqualFold
	}
	names := map[string]bool{}
	for _, p := range providers {
		if names[p.Name] {
			return nil, fmt.Errorf("provider %q: there are two of this name", p.Name)
		}
		names[p.Name] = true
		q, err := newProvider(p)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", p.Name, err)
		}
		s.providers = append(s.providers, q)
	}
	s.issued = issuedKeys(s.providers)
	s.remember(c.Before, time.Now())
	return s, nil
}

// pastValue is a value that the sandbox had.
type pastValue struct {
	secret.Secret
	expires time.Time // zero is never
}

// remember sets s.past and s.scrub. It keeps the values of before, nil without one: the
// sandbox may have stored them somewhere. Expired values are not secret any more.
func (s *Set) remember(before *Set, now time.Time) {
	var values []string
	has := map[string]bool{}
	for _, p := range s.providers {
		for _, v := range p.exact {
			has[v.Reveal()] = true
			values = append(values, v.Reveal())
		}
	}
	for _, v := range before.all() {
		if !has[v.Reveal()] && (v.expires.IsZero() || now.Before(v.expires.Add(pastGrace))) {
			has[v.Reveal()] = true
			s.past = append(s.past, v)
		}
	}
	s.past = s.past[max(0, len(s.past)-MaxPast):]
	for _, v := range s.past {
		values = append(values, v.Reveal())
	}
	s.scrub = newScrubber(values)
}

// all returns the values that answers are searched for, the oldest first. s may be nil.
func (s *Set) all() (all []pastValue) {
	if s == nil {
		return nil
	}
	all = slices.Clone(s.past)
	for _, p := range s.providers {
		for _, key := range slices.Sorted(maps.Keys(p.exact)) {
			all = append(all, pastValue{p.exact[key], p.expires[key]})
		}
	}
	return all
}

func newProvider(p Provider) (*provider, error) {
	q := &provider{Provider: p, newest: map[string]secret.Secret{}, exact: map[string]secret.Secret{}, expires: map[string]time.Time{}, places: map[string]Place{}}
	q.Endpoints = slices.Clone(p.Endpoints)
	for i := range q.Endpoints {
		e := &q.Endpoints[i]
		if e.Host == "" {
			return nil, fmt.Errorf("endpoint %d has no host", i+1)
		}
		if err := checkPath(e.Path); err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", e.Host, err)
		}
		e.Ports = slices.Clone(e.Ports)
	}
	latest := map[string]int{}
	for _, c := range p.Credentials {
		if err := checkCredential(c); err != nil {
			return nil, err
		}
		revision := fmt.Sprintf("v%d_%s", c.Revision, c.Key)
		if _, twice := q.exact[revision]; twice {
			return nil, fmt.Errorf("credential %s: there are two of revision %d", c.Key, c.Revision)
		}
		q.exact[revision], q.places[c.Key] = c.Value, c.Place
		if at, ok := latest[c.Key]; !ok || c.Revision > at {
			latest[c.Key], q.newest[c.Key] = c.Revision, c.Value
			q.expire(c.Key, c.Expires)
		}
		q.expire(revision, c.Expires)
	}
	for _, c := range p.Credentials {
		if c.Handle != "" {
			handle := "s" + c.Handle + "_" + c.Key
			q.exact[handle] = q.newest[c.Key]
			q.expire(handle, q.expires[c.Key])
		}
	}
	return q, nil
}

func (p *provider) expire(key string, at time.Time) {
	if delete(p.expires, key); !at.IsZero() {
		p.expires[key] = at
	}
}

func checkPath(path string) error {
	rest := strings.TrimSuffix(path, "**")
	switch {
	case path == "":
		return nil
	case path != "**" && !strings.HasPrefix(path, "/"), rest != path && rest != "" && !strings.HasSuffix(rest, "/"):
		return fmt.Errorf("path %q: write /prefix or /prefix/**", path)
	case strings.ContainsAny(rest, "*?[{%\\"):
		return fmt.Errorf("path %q: only a closing /** is a pattern here", path)
	}
	return nil
}

// checkCredential allows an empty value: it fails when it is used, so that one
// missing credential does not take the others away.
func checkCredential(c Credential) error {
	if c.Key == "" || len(c.Key) > MaxKey || strings.ContainsFunc(c.Key, func(r rune) bool { return r > 0x7f || !isKey(byte(r)) }) {
		return fmt.Errorf("credential key %.140q: use 1 to %d letters, digits and underscores", c.Key, MaxKey)
	}
	if k := parseKey(c.Key); k.name != c.Key {
		return fmt.Errorf("credential key %s: v<digits>_ and s<hex>_ are reserved for revisions and handles", c.Key)
	}
	if len(c.Value.Reveal()) > MaxValue {
		return fmt.Errorf("credential %s: the value is longer than %d bytes", c.Key, MaxValue)
	}
	if c.Revision < 0 {
		return fmt.Errorf("credential %s: revision %d is negative", c.Key, c.Revision)
	}
	if c.Handle != "" && !isHandle(c.Handle) {
		return fmt.Errorf("credential %s: a handle is 64 lower-case hexadecimal digits", c.Key)
	}
	return nil
}

// Providers returns all providers of the set, including detached ones.
func (s *Set) Providers() iter.Seq[Provider] {
	return func(yield func(Provider) bool) {
		for _, p := range s.providers {
			if !yield(p.Provider) {
				return
			}
		}
	}
}

// Needed says whether a provider is bound to the target's host and port, so that a
// connection there must be intercepted.
func (s *Set) Needed(t Target) bool {
	return slices.ContainsFunc(s.providers, func(p *provider) bool { return p.near(s, t) })
}

// Lost says whether a provider that is bound to the target's host and port has gone
// since before, which may be nil.
func (s *Set) Lost(before *Set, t Target) bool {
	return slices.ContainsFunc(s.providers, func(p *provider) bool {
		return p.Gone != "" && p.near(s, t) && before.there(p.Name)
	})
}

// there says whether the set has a provider of this name that is not gone.
func (s *Set) there(name string) bool {
	return s != nil && slices.ContainsFunc(s.providers, func(p *provider) bool { return p.Name == name && p.Gone == "" })
}

// near says whether the provider is bound to the target's host and port, on any
// path.
func (p *provider) near(s *Set, t Target) bool {
	if len(p.Endpoints) == 0 {
		return p.Name == t.Provider
	}
	return slices.ContainsFunc(p.Endpoints, func(e Endpoint) bool { return e.at(s, t.Host, t.Port) })
}

// bound says whether the provider's credentials may be sent to the target.
func (p *provider) bound(s *Set, t Target) bool {
	if t.Provider != "" && p.Name != t.Provider {
		return false
	}
	if len(p.Endpoints) == 0 {
		return p.Name == t.Provider
	}
	for i := range p.Endpoints {
		if e := &p.Endpoints[i]; e.at(s, t.Host, t.Port) && below(e.Path, t.Path) {
			return true
		}
	}
	return false
}

func (e *Endpoint) at(s *Set, host string, port uint16) bool {
	return slices.Contains(e.Ports, port) && s.match(e.Host, host)
}

// below says whether a path lies in the reach of an endpoint's path.
func below(reach, path string) bool {
	reach = strings.TrimSuffix(reach, "**")
	if reach == "" || reach == "/" {
		return true
	}
	plain, ok := percentDecode(path)
	if !ok || ambiguous(path, plain) {
		return false
	}
	if strings.HasSuffix(reach, "/") {
		return strings.HasPrefix(plain, reach)
	}
	return plain == reach || strings.HasPrefix(plain, reach+"/")
}

// ambiguous says whether servers may disagree on which directory a path is in.
func ambiguous(path, plain string) bool {
	if strings.Count(path, "/") != strings.Count(plain, "/") || strings.ContainsAny(plain, `\%`) || strings.Contains(plain, "//") {
		return true
	}
	for seg := range strings.SplitSeq(plain, "/") {
		if seg, _, _ = strings.Cut(seg, ";"); seg == "." || seg == ".." {
			return true
		}
	}
	return false
}

// Target is where a request goes.
type Target struct {
	Host string
	Port uint16
	Path string // as judged; not what a placeholder in it becomes
	// TLSVerified says that the upstream showed a certificate for Host.
	TLSVerified bool
	// Provider is credential_binding.provider: only this one's credentials are put
	// in. Empty is any that is bound.
	Provider string
}

// Options are the endpoint's credential fields.
type Options struct {
	// BodyRewrite is request_body_credential_rewrite, MessageRewrite
	// websocket_credential_rewrite.
	BodyRewrite, MessageRewrite bool
	// AllowUninspected is allow_uninspected_credentials: bodies and messages pass
	// unsearched and as they are. Agents whose prompts quote placeholders need it.
	AllowUninspected bool
	// AllowUnsearched is allow_unsearched_answers: bodies of answers and messages of the
	// server pass without a search.
	AllowUnsearched bool
	// Method is the request's; empty is GET.
	Method string
	// NoValues, if it is not empty, is the reason why no value is put into the request:
	// a placeholder in it is then an error.
	NoValues string
	// Signed says that Rewritten.Sign follows. The client's AWS signature, made
	// with a placeholder, is taken out.
	Signed bool
	// Hold has the memory of bodies that are kept and of decoders; nil counts none.
	Hold *memory.Hold
}
