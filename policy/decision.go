// SPDX-License-Identifier: Apache-2.0

package policy

// Verdict is the outcome of a [Decision]. The zero value is Deny.
type Verdict uint8

// The verdicts.
const (
	// Deny blocks the connection or request.
	Deny Verdict = iota
	// Audit means that the rules refuse the request, but the endpoint has enforcement:
	// audit. The request continues, and the refusal is recorded.
	Audit
	// Allow lets the connection or request continue.
	Allow
)

func (v Verdict) String() string { return [...]string{"deny", "audit", "allow"}[v] }

// Layer says whether a [Decision] is about a connection or about a request.
type Layer uint8

// The layers.
const (
	// L4 is the connection.
	L4 Layer = iota
	// L7 is one request on the connection.
	L7
)

func (l Layer) String() string { return [...]string{"l4", "l7"}[l] }

// Request is the input of [Engine.Decide]: a connection and, if HTTP is set, one request on
// it.
type Request struct {
	// Host is the destination in the spelling of [NormalizeHost].
	Host string
	Port uint16
	// Binary is the path of the caller's program in the container. Ancestors are the
	// programs of its parent processes, nearest first.
	Binary    string
	Ancestors []string
	// HTTP is the request. If it is nil, only the connection is judged.
	HTTP *HTTP
	// Forward is true if the client sent the request in absolute form to the proxy instead
	// of opening a tunnel. Then a path that no endpoint selects is refused, as in
	// OpenShell, even if the connection has only one endpoint. In a tunnel, a single
	// endpoint is used without regard to its path, and its rules decide.
	Forward bool
}

// HTTP is one HTTP request.
type HTTP struct {
	// Method is the method as the client sent it. Path is in the spelling of
	// [CanonicalPath]. RawQuery is the text after the ?, not decoded.
	Method, Path, RawQuery string
	// WebSocket is true if the request opens a WebSocket. With the method [MethodText] it
	// is a message on an open one.
	WebSocket bool
	// Overrides are the values that [Overrides] found. Each of them is judged as a request
	// of its own.
	Overrides []Override
}

// MethodText is the method with which rules match a text message on a WebSocket.
const MethodText = "WEBSOCKET_TEXT"

// Decision is the result of [Engine.Decide] and the reason for it. The zero value denies.
type Decision struct {
	Verdict Verdict
	Layer   Layer
	// Policy is the key of the policy that decided. If several matched, it is the smallest
	// key; if none matched, it is empty.
	Policy string
	// Rule describes the rule that decided, for people. Line is its line in the document.
	Rule string
	Line int
	// Reason says why the verdict is not Allow, in OpenShell's words. It is empty for
	// Allow.
	Reason   string
	Revision int

	// Inspect is true if each request on the connection must be judged.
	Inspect bool
	// TLSSkip is true if the proxy must pass TLS through without decrypting it. TCP is true
	// if the endpoint is protocol: tcp, so that the proxy passes the bytes through.
	TLSSkip, TCP bool
	// AllowEncodedSlash is the value of the argument of the same name with which to call
	// [CanonicalPath] and [Overrides] for requests on this connection.
	AllowEncodedSlash bool
	// Protocol is the protocol of the endpoint whose settings apply to the request. For a
	// connection it is ProtocolNone.
	Protocol Protocol
	// Credentials are the credential settings of that endpoint. For a connection, only the
	// fields that do not depend on the request are set.
	Credentials Credentials
	// OptionsNamed is true if an OPTIONS request is allowed by a rule that names the method
	// OPTIONS. The method * and access presets do not count.
	OptionsNamed bool
	// Destination decides to which addresses of the host the proxy may connect.
	Destination Destination
	// DestinationErr is the error in allowed_ips. If it is not nil, every connection is
	// denied.
	DestinationErr error
}

// NoWebSocket is the Reason of a Decision that refuses a WebSocket because its endpoint has
// protocol: rest. It names the fields that allow WebSockets.
const NoWebSocket = "a WebSocket is not carried at protocol: rest, where each request is judged and no message; write protocol: websocket, or websocket_credential_rewrite: true"

// CarriesWebSocket reports whether the endpoint whose settings apply to the request allows
// WebSockets: it has no protocol, protocol: websocket, or websocket_credential_rewrite.
func (d *Decision) CarriesWebSocket() bool {
	return d.Protocol == ProtocolNone || d.Protocol == ProtocolWebSocket || d.Credentials.MessageRewrite
}
