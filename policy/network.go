// SPDX-License-Identifier: Apache-2.0

package policy

// NetworkPolicy is one entry of network_policies. Each of its binaries may use each of its
// endpoints.
type NetworkPolicy struct {
	// Key is the entry's key in the map; decisions name it. Name is for people; if the
	// document has none, it is Key.
	Key, Name string
	Endpoints []Endpoint
	// Binaries are the programs that may use the endpoints. If it is empty, none may.
	Binaries []Binary
	// Line is the entry's line in its document.
	Line int
}

// Binary is the path of a program in the container; a path with a * is a glob.
type Binary struct {
	Path string
	Line int
}

// Protocol is the protocol of an endpoint. It decides how much of the traffic is judged.
type Protocol string

// The protocols that are enforced. [Parse] refuses the other protocols of the schema.
const (
	// ProtocolNone judges the connection alone (L4).
	ProtocolNone Protocol = ""
	// ProtocolTCP is raw TCP: the proxy does not look at its bytes.
	ProtocolTCP Protocol = "tcp"
	// ProtocolREST judges each HTTP request.
	ProtocolREST Protocol = "rest"
	// ProtocolWebSocket judges the requests that open WebSockets and each text message that
	// the client sends on them.
	ProtocolWebSocket Protocol = "websocket"
)

// Enforcement is the effect of a refusal by L7 rules.
type Enforcement string

// The enforcements. EnforcementUnset means EnforcementAudit, unless
// [CompileOptions.UnspecifiedEnforcement] says otherwise.
const (
	EnforcementUnset Enforcement = ""
	EnforcementAudit Enforcement = "audit"
	EnforcementBlock Enforcement = "enforce"
)

// Access is a preset of rules.
type Access string

// The presets.
const (
	AccessNone      Access = ""
	AccessReadOnly  Access = "read-only"
	AccessReadWrite Access = "read-write"
	AccessFull      Access = "full"
)

// Endpoint is one destination on the network and the requests that are allowed there.
type Endpoint struct {
	// Host is a name, a pattern or an address, in lower case. It is empty only if
	// AllowedIPs is not.
	Host string
	// Ports has at least one element, each from 1 to 65535.
	Ports    []uint16
	Protocol Protocol
	// Path selects the requests to which the endpoint applies. If it is empty, it applies
	// to all.
	Path string
	// TLSSkip makes the proxy forward TLS without decrypting it. Otherwise the proxy
	// terminates TLS where it has to read the content.
	TLSSkip     bool
	Enforcement Enforcement
	Access      Access
	Rules       []Rule
	DenyRules   []Rule
	// AllowedIPs holds addresses and prefixes as they are written. They are validated when
	// a connection is judged.
	AllowedIPs        []string
	AllowEncodedSlash bool
	Credentials       Credentials
	// Line is the endpoint's line in its document.
	Line int
}

// configures reports whether the endpoint has settings for connections or requests besides
// allowing them.
func (e *Endpoint) configures() bool {
	return e.Protocol.judges() || len(e.AllowedIPs) > 0 || e.TLSSkip || e.Credentials.Provider != ""
}

// judges reports whether each request is judged.
func (p Protocol) judges() bool { return p == ProtocolREST || p == ProtocolWebSocket }

// Rule is one allow or deny rule of an endpoint that judges requests.
type Rule struct {
	// Method is a method or *. GET also matches HEAD. [MethodText] matches a WebSocket
	// message.
	Method string
	// Path is a glob over the canonical path. An allow rule without a path matches nothing,
	// as in OpenShell; a deny rule without one matches every path.
	Path  string
	Query []QueryRule
	Line  int
}

// QueryRule is a condition on the values of one query parameter. A value matches if it
// matches any of the globs. In an allow rule every value must match, in a deny rule at
// least one.
type QueryRule struct {
	Key   string
	Globs []string
}
