// SPDX-License-Identifier: Apache-2.0

package policy

// NetworkPolicy is one entry of network_policies: the endpoints that some
// binaries may reach. Every binary may reach every endpoint of its own entry.
type NetworkPolicy struct {
	// Key is the entry's key in the map, which decisions name; Name is for
	// people and defaults to Key.
	Key, Name string
	Endpoints []Endpoint
	// Binaries may use the endpoints. None means no binary may.
	Binaries []Binary
	// Line is where the entry stands in its document.
	Line int
}

// Binary is a path, or with a * a glob over paths, of a program in the container.
type Binary struct {
	Path string
	Line int
}

// Protocol is what an endpoint speaks and how much of it is judged.
type Protocol string

// The protocols that are enforced. Parse refuses the others of the schema.
const (
	// ProtocolNone judges the connection alone (L4).
	ProtocolNone Protocol = ""
	// ProtocolTCP is raw TCP: nothing in it is looked at.
	ProtocolTCP Protocol = "tcp"
	// ProtocolREST judges each HTTP request.
	ProtocolREST Protocol = "rest"
	// ProtocolWebSocket judges the requests that begin WebSockets and each text
	// message that the client sends on them.
	ProtocolWebSocket Protocol = "websocket"
)

// Enforcement is what a refusal by L7 rules does.
type Enforcement string

// The enforcements. An absent one audits, unless the operator says otherwise.
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

// Endpoint is one place on the network and what may be asked of it.
type Endpoint struct {
	// Host is a name, a pattern or an address, in lower case; empty only with
	// AllowedIPs.
	Host string
	// Ports are one or more, each 1 to 65535.
	Ports    []uint16
	Protocol Protocol
	// Path selects which requests of the host this endpoint is about; empty is
	// all of them.
	Path string
	// TLSSkip forwards TLS unread. Otherwise the proxy ends TLS where it has to read the
	// content.
	TLSSkip     bool
	Enforcement Enforcement
	Access      Access
	Rules       []Rule
	DenyRules   []Rule
	// AllowedIPs are addresses and prefixes, as written: they are judged when a
	// connection is made.
	AllowedIPs        []string
	AllowEncodedSlash bool
	Credentials       Credentials
	// Line is where the endpoint stands in its document.
	Line int
}

// configures says that the endpoint has a say in how connections or requests are
// treated, besides allowing them.
func (e *Endpoint) configures() bool {
	return e.Protocol.judges() || len(e.AllowedIPs) > 0 || e.TLSSkip || e.Credentials.Provider != ""
}

// judges says that requests are judged one by one.
func (p Protocol) judges() bool { return p == ProtocolREST || p == ProtocolWebSocket }

// Rule is one allow or deny rule of an endpoint whose requests are judged.
type Rule struct {
	// Method is a method or *; GET is HEAD, too. MethodText is a message.
	Method string
	// Path is a glob over the canonical path. Without one an allow rule matches
	// nothing, as in OpenShell, and a deny rule every path.
	Path  string
	Query []QueryRule
	Line  int
}

// QueryRule is what the values of one query parameter must match: any of the
// globs. An allow rule asks it of every value, a deny rule of at least one.
type QueryRule struct {
	Key   string
	Globs []string
}
