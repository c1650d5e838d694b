// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"net/netip"
	"time"

	"openshell.dev/runtime/internal/inferencefile"
)

// Mark is on every packet of the proxy's own connections in the container's
// namespace: the only ones that are not led back to the proxy.
const Mark = 0x6f736801

// SourceTag is the second half, as bytes in memory, of the mark of each connection
// that reaches the proxy; the first half is the port it started from, in network
// order. The address that accept(2) tells may have another port: where two
// connections to different destinations have the same port, one of them gets a new one
// as it is redirected, for the kernel to tell them apart.
var SourceTag = [2]byte{0x74, 0x6f}

// LoopbackSource is the address from which the proxy asks a resolver on the container's
// loopback: nobody else connects from it or to it.
var LoopbackSource = netip.AddrFrom4([4]byte{127, 111, 115, 104})

// PortDomain is the port of every resolver, which the rules redirect to PortDNS.
const PortDomain = 53

// The proxy's ports on lo in the container's namespace.
const (
	PortProxy = 15001
	PortDNS   = 15053
)

// The guard's descriptors.
const (
	// FDConfig gives a Config and, once there is a container, a Container, as JSON.
	// Its end before that is the end of the proxy.
	FDConfig = 3 + iota
	// FDReady gets ReadyWord once the proxy serves, or nothing.
	FDReady
	// FDNetns is the container's network namespace.
	FDNetns
	// FDListeners is the first of the listeners; those that are not there are
	// /dev/null.
	FDListeners
)

// The roles of openshell-proxy, its first argument. The second argument, the container's
// ID, is for people who list processes. The program does not read it, so that a
// container may have the name of a role or of a flag.
const (
	RoleGuard   = "guard"
	RoleWorker  = "worker"
	RoleStandby = "standby"
)

// ReadyWord is what the guard says when the proxy serves.
const ReadyWord = "ready"

// Files in Config.StateDir.
const (
	// ControlSocketFile is the proxy's control socket (HTTP), for root alone.
	ControlSocketFile = "control.sock"
	// SecretsSocketFile is the guard's (HTTP), for root alone: credentials come in by it.
	SecretsSocketFile = "secrets.sock"
	// PoliciesDir is the folder of the policy's revisions.
	PoliciesDir = "policies"
	// CACertFile is the sandbox's CA (PEM).
	CACertFile = "ca.pem"
	// CAKeyFile is the CA's key (PEM).
	CAKeyFile = "ca.key"
	// LockFile is held by the guard while it lives, and holds its pid.
	LockFile = "proxy.pid"
	// StandbyLockFile is the same of the guard's standby.
	StandbyLockFile = "standby.pid"
	// StoresDir is the folder in which the container's overlays of CA stores are made, and
	// the files of stores that have none.
	StoresDir = "trust"
)

// The order of the donated listeners.
const (
	ProxyTCP4 = iota
	ProxyTCP6
	DNSUDP4
	DNSUDP6
	DNSTCP4
	DNSTCP6
	// Listeners is how many there are.
	Listeners
)

// Egress is where the proxy's own connections start.
type Egress string

// The ways out. The zero value is none.
const (
	// EgressNone reaches nothing.
	EgressNone Egress = ""
	// EgressNamespace starts in the container's network namespace, with the
	// proxy's mark: the container's own address, neighbours and resolver.
	EgressNamespace Egress = "namespace"
	// EgressHost starts in the host's namespace, for a container without an
	// uplink of its own.
	EgressHost Egress = "host"
)

// Config is what the proxy begins with, before there is a container.
type Config struct {
	// ID is the container's.
	ID string `json:"id"`
	// PolicyName is where PolicyText (YAML) came from.
	PolicyName string `json:"policyName"`
	PolicyText []byte `json:"policyText"`
	// Enforce makes an absent enforcement block instead of audit.
	Enforce bool `json:"enforce,omitempty"`
	// ControlPlanePorts are the ports of a cluster's control plane that policies may
	// allow; empty blocks all of them.
	ControlPlanePorts []uint16 `json:"controlPlanePorts,omitempty"`
	// TerminatePlainTLS ends TLS at endpoints without a protocol, too.
	TerminatePlainTLS bool `json:"terminatePlainTLS,omitempty"`
	// MayNamePrograms lets policies name programs. It is false if the sandbox's programs
	// can trace each other and the operator has not accepted that.
	MayNamePrograms bool `json:"mayNamePrograms,omitempty"`
	// AnyPlace puts credentials in wherever a placeholder stands.
	AnyPlace bool `json:"anyPlace,omitempty"`
	// FailClosed has everything denied when an invalid policy is set.
	FailClosed bool `json:"failClosed,omitempty"`
	// StateDir is the sandbox's own folder: control socket, CA, revisions.
	StateDir string `json:"stateDir"`
	// LogDir is where decisions are recorded.
	LogDir string `json:"logDir"`
	Egress Egress `json:"egress"`
	// UpstreamRoots are PEM certificates that upstreams are verified with beside
	// the system's.
	UpstreamRoots []byte `json:"upstreamRoots,omitempty"`
	// Providers are the credentials that the proxy puts in. They exist in the
	// proxy's processes only, never in a file of the sandbox.
	Providers []Provider `json:"providers,omitempty"`
	// Inference are the backends behind inference.local; nil without any.
	Inference *Inference `json:"inference,omitempty"`
	// Middlewares are the services that policies may name.
	Middlewares []Middleware `json:"middlewares,omitempty"`
	// Attached is the folder in which the guard shows that it takes updates; empty
	// without credentials.
	Attached string `json:"attached,omitempty"`
	// Trust are the container's certificate stores, which get the sandbox's CA.
	Trust TrustStores `json:"trust,omitzero"`
	// Refresher keeps credentials fresh that expire; nil without credentials.
	Refresher *Refresher `json:"refresher,omitempty"`
}

// Refresher is the one process of a store that makes credentials anew. Whichever
// guard finds none starts it.
type Refresher struct {
	Argv []string `json:"argv"`
	// LockFile is held by the one that runs.
	Lock string `json:"lock"`
}

// Inference is what the privacy router works with.
type Inference struct {
	inferencefile.File
	// Keys are the credentials by their route's name.
	Keys map[string]RouteKey `json:"keys,omitempty"`
}

// RouteKey is a backend's credential and how it travels: bearer, header, query, or as a
// signature, sigv4.
type RouteKey struct {
	Style string `json:"style"`
	Name  string `json:"name,omitempty"`
	Value string `json:"value"`
	// KeyID and Session are what AWS wants beside the secret, which is Value.
	KeyID   string `json:"keyID,omitempty"`
	Session string `json:"session,omitempty"`
	// Credential is its name in the route's provider, Revision that provider's.
	Credential string `json:"credential,omitempty"`
	Revision   int    `json:"revision,omitempty"`
	// Renewed and Expires are as a provider's and a credential's.
	Renewed bool      `json:"renewed,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// Middleware is a service of the operator's that looks at requests.
type Middleware struct {
	Name string `json:"name"`
	// URL is where it is. Roots (PEM), if any, are what its certificate is verified
	// with in place of the usual ones.
	URL   string `json:"url"`
	Roots []byte `json:"roots,omitempty"`
	// MaxBody is the longest body that it gets, in bytes, Timeout what a call may take.
	MaxBody int           `json:"maxBody"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Gone is why a sandbox has a provider no more; empty while it has it.
type Gone string

// The reasons, as they are said.
const (
	Deleted  Gone = "deleted"
	Detached Gone = "detached"
)

// Provider is a service with its credentials and where they belong.
type Provider struct {
	Name string `json:"name"`
	// Revision is the store's: it goes up with every change of values.
	Revision int `json:"revision,omitempty"`
	// Renewed says that values of it are made anew while the sandbox runs.
	Renewed bool `json:"renewed,omitempty"`
	// Gone providers keep endpoints and keys, and have no value: what belonged there
	// is refused.
	Gone Gone `json:"gone,omitempty"`
	// ModelAPI services take no credential but the provider's.
	ModelAPI    bool         `json:"modelAPI,omitempty"`
	Endpoints   []Endpoint   `json:"endpoints"`
	Credentials []Credential `json:"credentials"`
	// AuthHeaders and AuthQuery name where credentials travel.
	AuthHeaders []string `json:"authHeaders,omitempty"`
	AuthQuery   []string `json:"authQuery,omitempty"`
}

// Endpoint is a host pattern, its ports and a path; empty is every path.
type Endpoint struct {
	Host  string   `json:"host"`
	Ports []uint16 `json:"ports"`
	Path  string   `json:"path,omitempty"`
}

// Credential is a value under the variable that the sandbox knows it by.
type Credential struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// Name is the profile's for it, Revision the provider's that brought the value.
	Name     string `json:"name,omitempty"`
	Revision int    `json:"revision,omitempty"`
	// Expires is when the value ends; zero is never.
	Expires time.Time `json:"expires,omitzero"`
	// Header, Query and Path are where a request has it, beside the header Authorization:
	// a header field, a query parameter, or a path with {credential} in it.
	Header string `json:"header,omitempty"`
	Query  string `json:"query,omitempty"`
	Path   string `json:"path,omitempty"`
}

// Container is what the proxy serves by: known once the container's root is set
// up and nothing of its image has run.
type Container struct {
	// Pid is the container's first process, which the runtime keeps from being
	// reaped until the proxy is ready.
	Pid int `json:"pid"`
	// Resolvers are asked for names that policy allows.
	Resolvers []netip.AddrPort `json:"resolvers,omitempty"`
	// Hosts are names the engine or the user gave addresses to.
	Hosts map[string][]netip.Addr `json:"hosts,omitempty"`
	// Own are names of the container itself, from its hosts file.
	Own map[string][]netip.Addr `json:"own,omitempty"`
	// Trust is [Config]'s, with the Layer of each folder.
	Trust TrustStores `json:"trust,omitzero"`
}
