// SPDX-License-Identifier: Apache-2.0

package policy

// Verdict is the answer. The zero value is a refusal.
type Verdict uint8

// The verdicts.
const (
	// Deny stops what was asked for.
	Deny Verdict = iota
	// Audit is a refusal by rules of an endpoint that only audits: it goes on and
	// is recorded.
	Audit
	// Allow lets it pass.
	Allow
)

func (v Verdict) String() string { return [...]string{"deny", "audit", "allow"}[v] }

// Layer says what was judged.
type Layer uint8

// The layers.
const (
	// L4 is the connection.
	L4 Layer = iota
	// L7 is one request on it.
	L7
)

func (l Layer) String() string { return [...]string{"l4", "l7"}[l] }

// Request is what is judged: a connection and, with HTTP, one request on it.
type Request struct {
	// Host is as NormalizeHost gives it.
	Host string
	Port uint16
	// Binary is the caller's program, Ancestors its parents' programs, nearest
	// first: paths in the container.
	Binary    string
	Ancestors []string
	// HTTP is the request; nil judges the connection alone.
	HTTP *HTTP
	// Forward says the request came in absolute form to the proxy itself, where
	// OpenShell refuses a path that no endpoint selects even if only one could
	// (a tunnel with one endpoint asks its rules instead).
	Forward bool
}

// HTTP is one request.
type HTTP struct {
	// Method is as sent; Path as CanonicalPath gives it; RawQuery is what follows
	// the ?, undecoded.
	Method, Path, RawQuery string
	// WebSocket says that it begins a WebSocket or, with MethodText, is a message
	// on the one that it began.
	WebSocket bool
	// Overrides, as the function of the same name finds them, are judged as requests of
	// their own.
	Overrides []Override
}

// MethodText is the method of a text message on a WebSocket.
const MethodText = "WEBSOCKET_TEXT"

// Decision is the answer to a Request and why. The zero value denies.
type Decision struct {
	Verdict Verdict
	Layer   Layer
	// Policy is the key of the policy that decided, the smallest of those that
	// matched; empty if none did.
	Policy string
	// Rule is the rule that decided, for people; Line its place in the document.
	Rule string
	Line int
	// Reason is why not, in OpenShell's words; empty if allowed.
	Reason   string
	Revision int

	// Inspect says that requests on the connection must be judged one by one.
	Inspect bool
	// TLSSkip leaves TLS as it is and unchecked; TCP that the endpoint is raw TCP.
	TLSSkip, TCP bool
	// AllowEncodedSlash is how CanonicalPath is to be called for this endpoint.
	AllowEncodedSlash bool
	// Protocol is that of the endpoint that answers for the request; ProtocolNone
	// for a connection.
	Protocol Protocol
	// Credentials is what that endpoint says about them; for a connection, as far as
	// that is said without a request.
	Credentials Credentials
	// OptionsNamed is true for an allowed OPTIONS request if a rule that allows it names
	// this method; * and access presets do not.
	OptionsNamed bool
	// Destination is which addresses the host may have.
	Destination Destination
	// DestinationErr is what is wrong with allowed_ips, which denies every
	// connection.
	DestinationErr error
}

// NoWebSocket is the Reason of a Decision that refuses a WebSocket at protocol: rest, with
// the fields that allow it.
const NoWebSocket = "a WebSocket is not carried at protocol: rest, where each request is judged and no message; write protocol: websocket, or websocket_credential_rewrite: true"

// CarriesWebSocket reports whether the endpoint that answers for the request carries
// WebSockets: one without protocol, one with protocol: websocket, or one with
// websocket_credential_rewrite.
func (d *Decision) CarriesWebSocket() bool {
	return d.Protocol == ProtocolNone || d.Protocol == ProtocolWebSocket || d.Credentials.MessageRewrite
}
