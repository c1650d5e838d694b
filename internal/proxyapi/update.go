// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"openshell.dev/runtime/internal/secret"
)

// Generations is how many revisions of a credential placeholders can name, the
// newest among them. OpenShell keeps as many.
const Generations = 8

// Update is what a provider has become while sandboxes run that it is attached to.
type Update struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`
	Renewed  bool   `json:"renewed,omitempty"`
	Deleted  bool   `json:"deleted,omitempty"`
	// Credentials are all that the provider has now.
	Credentials []Credential `json:"credentials,omitempty"`
	// Kept are credentials, by name, whose value the sandbox alone has and keeps.
	Kept []string `json:"kept,omitempty"`
}

// Secrets is all that a running proxy may be given anew.
type Secrets struct {
	// Generation counts what the guard has told its worker.
	Generation int        `json:"generation"`
	Providers  []Provider `json:"providers,omitempty"`
	Inference  *Inference `json:"inference,omitempty"`
}

// ErrNotAttached is about a provider that the sandbox does not have.
var ErrNotAttached = errors.New("the provider is not attached to this sandbox")

// ErrDeleted is about a provider that was deleted: it stays so for this sandbox until
// somebody attaches it, since what has its name now may be somebody else's.
var ErrDeleted = errors.New("the provider was deleted while this sandbox ran: attach it anew")

// Apply gives what s becomes by u; s stays as it is. A revision that s has already
// changes nothing.
func (s *Secrets) Apply(u *Update) (*Secrets, error) {
	out := *s
	found := false
	out.Providers = slices.Clone(s.Providers)
	has := slices.IndexFunc(s.Providers, func(p Provider) bool { return p.Name == u.Name && p.Gone != Detached })
	for i := range out.Providers {
		if p := &out.Providers[i]; has >= 0 && i != has {
			if k := sharedKey(p, u.Credentials); k != "" {
				return nil, fmt.Errorf("provider %s brings %s, which is %s's in this sandbox", u.Name, k, p.Name)
			}
		}
	}
	if has >= 0 {
		found = true
		p := &out.Providers[has]
		if p.Gone == Deleted && !u.Deleted {
			return nil, ErrDeleted
		}
		p.apply(u)
	}
	if s.Inference != nil {
		i := *s.Inference
		i.Keys = maps.Clone(s.Inference.Keys)
		for _, r := range i.Routes {
			if k, ok := i.Keys[r.Name]; ok && r.Provider == u.Name {
				found = true
				i.Keys[r.Name] = k.apply(u)
			}
		}
		out.Inference = &i
	}
	if !found {
		return nil, ErrNotAttached
	}
	return &out, nil
}

// Attach gives what s becomes with one more provider; s stays as it is. One that it
// has already changes nothing, one that is gone is as new, and a key of one that is gone
// is the new one's.
func (s *Secrets) Attach(n *Provider) (*Secrets, error) {
	out := *s
	out.Providers = nil
	for _, p := range s.Providers {
		switch k := sharedKey(&p, n.Credentials); {
		case p.Name == n.Name && p.Gone == "":
			return s, nil
		case p.Name == n.Name:
			continue
		case k != "" && p.Gone == "":
			return nil, fmt.Errorf("providers %s and %s both bring %s: detach %s first", p.Name, n.Name, k, p.Name)
		case k != "":
			p.Credentials = slices.DeleteFunc(slices.Clone(p.Credentials), func(c Credential) bool {
				return slices.ContainsFunc(n.Credentials, func(o Credential) bool { return o.Key == c.Key })
			})
		}
		out.Providers = append(out.Providers, p)
	}
	out.Providers = append(out.Providers, *n)
	return &out, nil
}

// Detach gives what s becomes without the values of a provider; s stays as it is. The
// routes of the privacy router are the operator's, and keep theirs.
func (s *Secrets) Detach(name string) (*Secrets, error) {
	i := slices.IndexFunc(s.Providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return nil, ErrNotAttached
	}
	out := *s
	out.Providers = slices.Clone(s.Providers)
	out.Providers[i].leave(Detached)
	return &out, nil
}

func sharedKey(p *Provider, brought []Credential) string {
	for _, c := range brought {
		if slices.ContainsFunc(p.Credentials, func(o Credential) bool { return o.Key == c.Key }) {
			return c.Key
		}
	}
	return ""
}

func (p *Provider) apply(u *Update) {
	switch {
	case u.Deleted:
		p.leave(Deleted)
		return
	case u.Revision <= p.Revision:
		return
	}
	next := slices.Clone(u.Credentials)
	for i := range next {
		next[i].Revision = u.Revision
	}
	// A key that is gone stays known by its old revisions: its newest has no value.
	for _, c := range p.Credentials {
		has := slices.ContainsFunc(next, func(n Credential) bool { return n.Key == c.Key && n.Revision == u.Revision })
		switch {
		case slices.Contains(u.Kept, c.Name):
		case !has:
			next = append(next, Credential{Key: c.Key, Name: c.Name, Revision: u.Revision})
		}
		next = append(next, c)
	}
	p.Revision, p.Renewed, p.Credentials = u.Revision, u.Renewed, recent(next)
}

// leave takes the values away. The first reason is the one that is said.
func (p *Provider) leave(why Gone) {
	if p.Gone != "" {
		return
	}
	p.Gone, p.Renewed = why, false
	p.Credentials = slices.Clone(p.Credentials)
	for i := range p.Credentials {
		p.Credentials[i].Value = secret.Secret{}
	}
}

// recent keeps the newest Generations of each key.
func recent(all []Credential) []Credential {
	slices.SortStableFunc(all, func(a, b Credential) int { return b.Revision - a.Revision })
	kept := map[string]int{}
	return slices.DeleteFunc(all, func(c Credential) bool {
		kept[c.Key]++
		return kept[c.Key] > Generations
	})
}

// SigV4 is the Style of a RouteKey that requests to AWS are signed with.
const SigV4 = "sigv4"

// AWSKey makes one key of the variables that AWS's come in; false without them.
func (u *Update) AWSKey() (*RouteKey, bool) {
	k := &RouteKey{Style: SigV4, Revision: u.Revision, Renewed: u.Renewed}
	for _, c := range u.Credentials {
		switch c.Key {
		case "AWS_ACCESS_KEY_ID":
			k.KeyID = c.Value.Reveal()
		case "AWS_SECRET_ACCESS_KEY":
			k.Value, k.Credential, k.Expires = c.Value, c.Name, c.Expires
		case "AWS_SESSION_TOKEN":
			k.Session = c.Value
		}
	}
	return k, k.KeyID != "" && !k.Value.IsZero()
}

func (k RouteKey) apply(u *Update) RouteKey {
	if !u.Deleted && u.Revision <= k.Revision {
		return k
	}
	if k.Style == SigV4 {
		if next, ok := u.AWSKey(); ok && !u.Deleted {
			return *next
		}
		return RouteKey{Style: SigV4, Credential: k.Credential, Revision: u.Revision, Renewed: u.Renewed}
	}
	if !u.Deleted && slices.Contains(u.Kept, k.Credential) {
		return k
	}
	k.Value, k.Revision, k.Renewed = secret.Secret{}, u.Revision, u.Renewed
	i := slices.IndexFunc(u.Credentials, func(c Credential) bool { return c.Name == k.Credential })
	if i >= 0 && !u.Deleted {
		k.Value, k.Expires = u.Credentials[i].Value, u.Credentials[i].Expires
	}
	return k
}
