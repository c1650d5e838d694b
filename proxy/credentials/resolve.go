// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"slices"
	"sync"
	"time"

	"openshell.dev/runtime/proxy/memory"
)

// resolver resolves the placeholders of one request.
type resolver struct {
	set *Set
	to  Target
	// noValues is the reason why no value is put in, "" if values are.
	noValues string
	// hold has the memory of bodies and decoders.
	hold *memory.Hold

	mu     sync.Mutex // a body may still be read when the answer comes
	used   []string   // keys whose values were put in
	passed []string   // keys of the placeholders that passed in the body
}

// value is the credential that a placeholder's key names here.
func (r *resolver) value(key, where string) (string, error) {
	value, _, err := r.credential(key, where)
	return value, err
}

// credential also returns the place of the credential.
func (r *resolver) credential(key, where string) (value string, at Place, _ error) {
	k := parseKey(key)
	if len(k.name) > MaxKey {
		return "", at, &MalformedError{Where: where, Reason: "the key is too long"}
	}
	known, has, here, gone := false, false, false, ""
	var expires time.Time
	for _, p := range r.set.providers {
		table := p.newest
		if k.exact {
			table = p.exact
		}
		if _, ok := p.newest[k.name]; ok {
			known = true
			if p.Gone != "" {
				gone = p.Name + " was " + p.Gone
			}
		}
		s, ok := table[key]
		if !ok || r.to.Provider != "" && p.Name != r.to.Provider {
			continue
		}
		has = true
		if !p.bound(r.set, r.to) {
			continue
		}
		if here && value != s.Reveal() {
			return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "several providers bound here have one of this name"}
		}
		here, value, at, expires = true, s.Reveal(), p.places[k.name], p.expires[key]
	}
	switch {
	case r.noValues != "":
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: r.noValues}
	case !known:
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "no attached provider has it"}
	case !has && !k.exact:
		return "", at, &MismatchError{k.name, r.to.Host, r.to.Port, where, "the endpoint is for another provider"}
	case !has:
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "this revision or handle is not known any more"}
	case !here:
		return "", at, &MismatchError{k.name, r.to.Host, r.to.Port, where, "its provider is not bound to this host, port and path"}
	case !r.to.TLSVerified:
		return "", at, &MismatchError{k.name, r.to.Host, r.to.Port, where, "the connection is not verified TLS"}
	case value == "" && gone != "":
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "its provider " + gone}
	case value == "":
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "its value is empty"}
	case !expires.IsZero() && !time.Now().Before(expires):
		return "", at, &UnresolvedError{Key: k.name, Where: where, Reason: "it expired at " + expires.UTC().Format(time.RFC3339) + " and was not refreshed; the operator sees why in `openshell provider refresh status`"}
	}
	r.use(k.name)
	return value, at, nil
}

// use notes that a key's value was put in, and pass that its placeholder passed.
func (r *resolver) use(key string)  { r.add(&r.used, key) }
func (r *resolver) pass(key string) { r.add(&r.passed, key) }

func (r *resolver) add(to *[]string, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(*to, key) {
		*to = append(*to, key)
	}
}

// keys returns one of the lists that add extends, sorted.
func (r *resolver) keys(list *[]string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(*list))
}

// refuse is the error for a placeholder that stands where none is resolved.
func (r *resolver) refuse(where, reason string) error {
	for _, p := range r.set.providers {
		if r.to.TLSVerified && p.bound(r.set, r.to) {
			return &UnresolvedError{Where: where, Reason: reason}
		}
	}
	return &MismatchError{"", r.to.Host, r.to.Port, where, "no provider is bound to this host, port and path"}
}
