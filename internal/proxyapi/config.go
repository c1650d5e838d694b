// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"net/netip"
	"time"

	"openshell.dev/runtime/internal/secret"
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

// Refresher is the process that refreshes the credentials of a store. A store has at most
// one. A guard that finds none starts it.
type Refresher struct {
	Argv []string `json:"argv"`
	// LockFile is held by the one that runs.
	Lock string `json:"lock"`
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

// WorkerConfig is what a worker begins with; the Container follows it.
type WorkerConfig struct {
	Config
	// CACert and CAKey are the sandbox's CA and its key (PEM).
	CACert []byte        `json:"caCert"`
	CAKey  secret.Secret `json:"caKey"`
	// Generation is that of the Secrets in Config.
	Generation int `json:"generation"`
}

// Connection is a worker's question for the programs that hold a connection: both ends as
// the client sees them.
type Connection struct{ Local, Remote netip.AddrPort }

// Known is what a worker says of the Secrets that it was told last.
type Known struct {
	Generation int
	// Err is why it does not use them; empty if it does.
	Err string
}
