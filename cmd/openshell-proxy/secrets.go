// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
)

// credentialSet returns the providers' credentials for the proxy, nil if there are none.
// before is the set in use until now, nil at first.
// anyPlace is as in proxyapi.Config.
func credentialSet(list []proxyapi.Provider, anyPlace bool, before *credentials.Set) (*credentials.Set, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var out []credentials.Provider
	hosts := map[string]policy.Glob{}
	for _, p := range list {
		n := credentials.Provider{Name: p.Name, ModelAPI: p.ModelAPI, Gone: string(p.Gone), AuthHeaders: p.AuthHeaders, AuthQuery: p.AuthQuery}
		for _, e := range p.Endpoints {
			glob, err := policy.CompileGlob(e.Host, '.')
			if err != nil {
				return nil, fmt.Errorf("provider %s: %w", p.Name, err)
			}
			hosts[e.Host] = glob
			n.Endpoints = append(n.Endpoints, credentials.Endpoint{Host: e.Host, Ports: e.Ports, Path: e.Path})
		}
		for _, k := range p.Credentials {
			n.Credentials = append(n.Credentials, credentials.Credential{
				Key: k.Key, Value: k.Value, Revision: k.Revision, Expires: k.Expires,
				Place: credentials.Place{Header: k.Header, Query: k.Query, Path: k.Path},
			})
		}
		out = append(out, n)
	}
	match := func(pattern, host string) bool {
		g := hosts[pattern]
		return g.Match(host)
	}
	return credentials.New(credentials.Config{MatchHost: match, AnyPlace: anyPlace, Before: before}, out)
}

// follow uses what the guard says that the secrets have become, until the guard is
// gone, and this process with it.
func (w *worker) follow() {
	known := proxyapi.Known{Generation: w.config.Generation}
	for {
		s, err := w.guard.Secrets(known)
		if err != nil {
			return
		}
		known = proxyapi.Known{Generation: s.Generation}
		if err := w.apply(s); err != nil {
			known.Err = err.Error()
		}
	}
}

// apply has requests that begin from now on use other secrets.
func (w *worker) apply(s *proxyapi.Secrets) error {
	set, err := credentialSet(s.Providers, w.config.AnyPlace, w.set)
	if err != nil {
		return err
	}
	if err := w.applyInference(s.Inference); err != nil {
		return err
	}
	w.set = set
	w.sandbox.SetCredentials(set)
	for _, p := range s.Providers {
		w.recordChange(p)
	}
	w.config.Providers, w.config.Inference = s.Providers, s.Inference
	return nil
}

// recordChange notes that a provider is another than before.
func (w *worker) recordChange(p proxyapi.Provider) {
	for _, o := range w.config.Providers {
		if o.Name == p.Name && o.Revision == p.Revision && o.Gone == p.Gone {
			return
		}
	}
	r := decisionlog.Record{Time: time.Now(), Verdict: policy.Allow.String(), Layer: "credentials", Rule: p.Name, Reason: fmt.Sprintf("provider %s: revision %d is in use", p.Name, p.Revision)}
	if p.Gone != "" {
		r.Verdict, r.Reason = policy.Deny.String(), "provider "+p.Name+" was "+string(p.Gone)+": its placeholders are refused"
	}
	w.log.Record(r)
}
