// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strings"

	"openshell.dev/runtime/policy"
)

// Inspector knows a protocol that HTTP carries: it turns what was received into the facts
// that the policy judges. It decides nothing.
type Inspector interface {
	// Request returns the facts of a request. uri is its path and query as received, dec the
	// decision on its connection. An error says why the request has no single meaning; the
	// request is refused.
	Request(req *http.Request, uri string, dec *policy.Decision) (*policy.HTTP, error)
	// Message returns the facts of a message on a connection that a request with the facts
	// asked has upgraded. It returns nil if the policy has no rules for such messages: the
	// decision on the request is the decision on them. text is true for a message of text.
	Message(asked *policy.HTTP, text bool) *policy.HTTP
}

// inspectors has the inspector of each protocol of an endpoint. An endpoint without a
// protocol is inspected as [policy.ProtocolREST]. A new protocol is a line here and a file
// with its inspector.
var inspectors = map[policy.Protocol]Inspector{
	policy.ProtocolREST:      restInspector{},
	policy.ProtocolWebSocket: webSocketInspector{},
}

func inspectorOf(p policy.Protocol) Inspector {
	if i := inspectors[p]; i != nil {
		return i
	}
	return restInspector{}
}

// restInspector is the inspector of requests alone: it puts each into one spelling.
type restInspector struct{}

// Request implements [Inspector].
func (restInspector) Request(req *http.Request, uri string, dec *policy.Decision) (*policy.HTTP, error) {
	raw, query, _ := strings.Cut(uri, "?")
	path, err := policy.CanonicalPath(raw, dec.AllowEncodedSlash)
	if err != nil {
		return nil, err
	}
	if query, err = policy.CanonicalQuery(query); err != nil {
		return nil, err
	}
	asked := &policy.HTTP{Method: req.Method, Path: path, RawQuery: query, WebSocket: req.ProtoMajor == 1 && handshake(req)}
	if dec.Inspect {
		asked.Overrides, err = policy.Overrides(req.Header, asked, dec.AllowEncodedSlash)
	}
	return asked, err
}

// Message implements [Inspector].
func (restInspector) Message(*policy.HTTP, bool) *policy.HTTP { return nil }
