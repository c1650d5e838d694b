// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// compileOptions are the options with which a sandbox of this operator compiles a policy.
func compileOptions(config *operator.Config) policy.CompileOptions {
	return policy.CompileOptions{UnspecifiedEnforcement: config.UnspecifiedEnforcement, ControlPlanePorts: config.ControlPlanePorts}
}

// compile makes an engine of the policy as a sandbox of this operator's would, and returns
// the options for suggestions to such a sandbox.
func compile(c *cli.Context, p *policy.Policy) (*policy.Engine, policy.SuggestOptions, error) {
	config, err := operatorConfig(c)
	if err != nil {
		return nil, policy.SuggestOptions{}, err
	}
	o := policy.SuggestOptions{
		CompileOptions: compileOptions(config),
		EveryProgram:   config.Tracing != plan.TracingAllow && config.Tracing.Allows(p),
	}
	e, err := policy.Compile(p, o.CompileOptions)
	if err != nil {
		err = cli.Exit(err.Error(), exitProblems)
	}
	return e, o, err
}

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
	// Headers are read for overrides of the method and the path; see policy.Overrides.
	Headers map[string][]string `json:"headers"`
}

// at is the part as it is judged, at its canonical path.
func (h *httpPart) at(path string) *policy.HTTP {
	query, err := policy.CanonicalQuery(h.Query)
	if err != nil {
		query = h.Query
	}
	return &policy.HTTP{Method: h.Method, Path: path, RawQuery: query, WebSocket: h.WebSocket}
}

// judge asks the engine as the proxy does: in canonical spellings, the connection
// first. A host or path without a canonical spelling is denied, and so is a host that no
// connection reaches; the sandbox itself is allowed. The Request is the one that was judged
// last, nil if no change of the policy would help.
func judge(e *policy.Engine, q *question) (policy.Decision, *policy.Request) {
	host, err := policy.NormalizeHost(q.Host)
	if err != nil {
		return policy.Decision{Reason: err.Error()}, nil
	}
	if why := policy.Sandbox(host); why != "" {
		return policy.Decision{Verdict: policy.Allow, Reason: why}, nil
	}
	r := &policy.Request{Host: host, Port: q.Port, Binary: q.Binary, Ancestors: q.Ancestors}
	d := e.Decide(r)
	if why := policy.Unreachable(host); why != "" {
		d.Verdict, d.Reason = policy.Deny, why
		return d, nil
	}
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
	if r.HTTP.Overrides, err = policy.Overrides(q.HTTP.Headers, r.HTTP, d.AllowEncodedSlash); err != nil {
		d.Verdict, d.Layer, d.Reason = policy.Deny, policy.L7, err.Error()
		return d, nil
	}
	return e.Decide(r), r
}
