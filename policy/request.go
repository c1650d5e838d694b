// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// request judges r.HTTP and each request that its overrides can turn it into, by the
// endpoints that match the connection. The strictest decision counts.
func (d *Decision) request(r *Request, matched []*endpoint) {
	d.ask(r.HTTP, r.Forward, matched)
	if len(r.HTTP.Overrides) == 0 {
		return
	}
	for asked, source := range r.HTTP.eachOverridden {
		if d.Verdict == Deny {
			break
		}
		o := *d
		o.ask(asked, r.Forward, matched)
		if o.Verdict < d.Verdict {
			d.Verdict, d.Rule, d.Line, d.Reason = o.Verdict, o.Rule, o.Line, source+": "+o.Reason
		}
	}
}

// ask judges one request by the endpoints that match the connection.
func (d *Decision) ask(h *HTTP, forward bool, matched []*endpoint) {
	d.Layer, d.Verdict = L7, Deny
	d.Rule, d.Line, d.Credentials = "", 0, Credentials{}
	if h.Method == "" || !strings.HasPrefix(h.Path, "/") {
		d.Reason = "request has no method or no path"
		return
	}
	selected := selectEndpoint(h.Path, forward, matched)
	if selected == nil {
		d.AllowEncodedSlash = false
		d.Reason = "no L7 endpoint path matched request"
		return
	}
	d.AllowEncodedSlash, d.Protocol, d.Credentials = selected.encodedSlash, selected.protocol, selected.credentials
	if !selected.selector.match(h.Path) {
		d.Credentials.Provider = "" // not this path's
	}
	if selected.protocol == ProtocolWebSocket && !h.WebSocket {
		d.refuse(selected, "websocket endpoint requires a valid WebSocket upgrade request")
		return
	}
	if !selected.encodedSlash && strings.Contains(h.Path, "%2F") {
		d.refuse(selected, "request-target contains an encoded '/' (%2F) which is not allowed on this endpoint")
		return
	}
	if !escapesUTF8(h.Path) && slices.ContainsFunc(matched, func(ep *endpoint) bool { return ep.readsPath }) {
		d.refuse(selected, "path has escapes that are not UTF-8, and a rule reads the path")
		return
	}
	read := slices.ContainsFunc(matched, func(ep *endpoint) bool { return ep.queried })
	if err := checkQuery(h.RawQuery, read); err != nil {
		d.refuse(selected, err.Error())
		return
	}
	rule, denied := judge(h, matched)
	if rule != nil {
		d.Rule, d.Line = rule.text, rule.line
	}
	if rule != nil && !denied {
		d.Verdict, d.OptionsNamed = Allow, optionsNamed(h, matched)
		d.refuseWebSocket(h, selected)
		return
	}
	why := " not permitted by policy"
	if denied {
		why = " blocked by deny rule"
	} else {
		d.Rule, d.Line = selected.text, selected.line
	}
	d.Reason = h.Method + " " + h.Path + why
	if selected.audit && !siblingBlocks(h.Path, forward, matched) {
		d.Verdict = Audit
		d.refuseWebSocket(h, selected)
	}
}

// refuseWebSocket denies a request that opens a WebSocket which selected does not allow.
func (d *Decision) refuseWebSocket(h *HTTP, selected *endpoint) {
	if h.WebSocket && !d.CarriesWebSocket() {
		d.Verdict, d.OptionsNamed = Deny, false
		d.refuse(selected, NoWebSocket)
	}
}

func (d *Decision) refuse(by *endpoint, reason string) {
	d.Rule, d.Line, d.Reason = by.text, by.line, reason
}

// selectEndpoint returns the endpoint whose enforcement and allow_encoded_slash apply to
// the path: the one with the most specific path, and the last of several equal ones. A
// single endpoint in a tunnel applies without regard to its path; its rules decide.
func selectEndpoint(path string, forward bool, matched []*endpoint) *endpoint {
	var best, only *endpoint
	count := 0
	for _, ep := range matched {
		if !ep.judged {
			continue
		}
		only = ep
		count++
		if ep.selector.match(path) && (best == nil || ep.rank >= best.rank) {
			best = ep
		}
	}
	if best == nil && count == 1 && !forward {
		return only
	}
	return best
}

// siblingBlocks reports whether another spelling of the path belongs to an endpoint that
// enforces its rules: the path without its trailing slash or with one added, or with each
// %2F decoded. Otherwise a client could use a spelling that an auditing endpoint matches to
// get past the enforced rules.
func siblingBlocks(path string, forward bool, matched []*endpoint) bool {
	blocks := func(path string) bool {
		selected := selectEndpoint(path, forward, matched)
		return selected != nil && !selected.audit
	}
	decoded := decodeSlashes(path)
	return blocks(decoded) || blocks(toggleSlash(path)) || blocks(toggleSlash(decoded))
}

// toggleSlash adds a trailing slash to the path, or removes the one it has.
func toggleSlash(path string) string {
	if bare, ok := strings.CutSuffix(path, "/"); ok {
		return bare
	}
	return path + "/"
}

// judge asks the rules of every endpoint that matches the path. Any rule may allow the
// request, and any deny rule refuses it, also one of another endpoint. Deny rules are asked
// about the path with each %2F decoded, too.
func judge(h *HTTP, matched []*endpoint) (by *compiledRule, denied bool) {
	decoded := *h
	decoded.Path = decodeSlashes(h.Path)
	both := decoded.Path != h.Path
	for _, ep := range matched {
		if ep.hasPath && !ep.covered.covers(h.Path) && !(both && ep.covered.covers(decoded.Path)) {
			continue
		}
		rule := ep.deny.find(h, true)
		if rule == nil && both {
			rule = ep.deny.find(&decoded, true)
		}
		if rule != nil {
			return rule, true
		}
		if by == nil && (!ep.hasPath || ep.path.Match(h.Path)) {
			by = ep.allow.find(h, false)
		}
	}
	return by, false
}

// optionsNamed reports whether a rule that allows h names its method, OPTIONS.
func optionsNamed(h *HTTP, matched []*endpoint) bool {
	return equalUpper("OPTIONS", h.Method) && slices.ContainsFunc(matched, func(ep *endpoint) bool {
		return (!ep.hasPath || ep.path.Match(h.Path)) && ep.options.find(h, false) != nil
	})
}
