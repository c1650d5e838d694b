// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"errors"
	"fmt"
	"maps"
	"slices"
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

// ErrDeleted is about a provider that was deleted: it stays so for this sandbox,
// since what has its name now may be somebody else's.
var ErrDeleted = errors.New("the provider was deleted while this sandbox ran: create another sandbox")

// Apply gives what s becomes by u; s stays as it is. A revision that s has already
// changes nothing.
func (s *Secrets) Apply(u *Update) (*Secrets, error) {
	out := *s
	found := false
	out.Providers = slices.Clone(s.Providers)
	for i := range out.Providers {
		p := &out.Providers[i]
		if p.Name != u.Name {
			if k := sharedKey(p, u); k != "" {
				return nil, fmt.Errorf("provider %s brings %s, which is %s's in this sandbox", u.Name, k, p.Name)
			}
			continue
		}
		found = true
		if p.Deleted && !u.Deleted {
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

func sharedKey(p *Provider, u *Update) string {
	for _, c := range u.Credentials {
		if slices.ContainsFunc(p.Credentials, func(o Credential) bool { return o.Key == c.Key }) {
			return c.Key
		}
	}
	return ""
}

func (p *Provider) apply(u *Update) {
	switch {
	case u.Deleted:
		p.Deleted, p.Renewed = true, false
		p.Credentials = slices.Clone(p.Credentials)
		for i := range p.Credentials {
			p.Credentials[i].Value = ""
		}
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

// recent keeps the newest Generations of each key.
func recent(all []Credential) []Credential {
	slices.SortStableFunc(all, func(a, b Credential) int { return b.Revision - a.Revision })
	kept := map[string]int{}
	return slices.DeleteFunc(all, func(c Credential) bool {
		kept[c.Key]++
		return kept[c.Key] > Generations
	})
}

func (k RouteKey) apply(u *Update) RouteKey {
	if !u.Deleted && u.Revision <= k.Revision {
		return k
	}
	if !u.Deleted && slices.Contains(u.Kept, k.Credential) {
		return k
	}
	k.Value, k.Revision, k.Renewed = "", u.Revision, u.Renewed
	i := slices.IndexFunc(u.Credentials, func(c Credential) bool { return c.Name == k.Credential })
	if i >= 0 && !u.Deleted {
		k.Value, k.Expires = u.Credentials[i].Value, u.Credentials[i].Expires
	}
	return k
}
