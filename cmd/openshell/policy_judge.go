// SPDX-License-Identifier: Apache-2.0

package main

import (
	"openshell.dev/runtime/policy"
)

// question is one request as a person or a program writes it.
type question struct {
	Host      string    `json:"host"`
	Port      uint16    `json:"port"`
	Binary    string    `json:"binary"`
	Ancestors []string  `json:"ancestors"`
	HTTP      *httpPart `json:"http"`
}

type httpPart struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query"`
	// WebSocket says that it begins one or, with WEBSOCKET_TEXT, is a message on it.
	WebSocket bool `json:"websocket"`
}

// at is the part as it is judged, at its canonical path.
func (h *httpPart) at(path string) *policy.HTTP {
	return &policy.HTTP{Method: h.Method, Path: path, RawQuery: h.Query, WebSocket: h.WebSocket}
}

// judge asks the engine as the proxy does: in canonical spellings, the connection
// first. What has no canonical spelling is denied. The Request is what was judged
// last.
func judge(e *policy.Engine, q *question) (policy.Decision, *policy.Request) {
	host, err := policy.NormalizeHost(q.Host)
	if err != nil {
		return policy.Decision{Reason: err.Error()}, nil
	}
	r := &policy.Request{Host: host, Port: q.Port, Binary: q.Binary, Ancestors: q.Ancestors}
	d := e.Decide(r)
	if d.Verdict != policy.Allow || !d.Inspect || q.HTTP == nil {
		return d, r
	}
	path, err := policy.CanonicalPath(q.HTTP.Path, d.AllowEncodedSlash)
	if err != nil {
		d.Verdict, d.Layer, d.Reason = policy.Deny, policy.L7, err.Error()
		// With slashes kept the path may be one that a change could allow.
		if path, err = policy.CanonicalPath(q.HTTP.Path, true); err != nil {
			return d, nil
		}
		r.HTTP = q.HTTP.at(path)
		return d, r
	}
	r.HTTP = q.HTTP.at(path)
	return e.Decide(r), r
}
