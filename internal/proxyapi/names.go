// SPDX-License-Identifier: Apache-2.0

package proxyapi

import "net/netip"

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
	// FDGuardConfig gives a Config and, once there is a container, a Container, as JSON.
	// Its end before that is the end of the proxy.
	FDGuardConfig = 3 + iota
	// FDGuardReady gets ReadyWord once the proxy serves, or nothing.
	FDGuardReady
	// FDGuardNetns is the container's network namespace.
	FDGuardNetns
	// FDGuardListeners is the descriptor of the first listener. The descriptor of a missing
	// listener is /dev/null.
	FDGuardListeners
)

// The standby's descriptors, beside the guard's own.
const (
	// FDStandbyInit is a pidfd of the container's first process.
	FDStandbyInit = FDGuardListeners + Listeners + iota
	// FDStandbyGuard is a pidfd of the guard.
	FDStandbyGuard
)

// The worker's descriptors, beside its standard input, which gives a WorkerConfig and,
// once there is a container, a Container, as JSON.
const (
	// FDWorkerIdentity is the worker's end of the socket pair for questions to the guard.
	FDWorkerIdentity = 3 + iota
	// FDWorkerSockets is its end of the socket pair by which the guard gives it sockets in
	// the container's network namespace.
	FDWorkerSockets
	// FDWorkerControl is the control socket's listener.
	FDWorkerControl
	// FDWorkerListeners is the first of the listeners.
	FDWorkerListeners
)

// The programs. All of them are in one folder.
const (
	ProgramRuntime   = "openshell-runtime"
	ProgramLaunch    = "openshell-launch"
	ProgramProxy     = "openshell-proxy"
	ProgramRefresher = "openshell-refresher"
)

// The names of a standby, other than the proxy's, so that what kills all processes of the
// proxy's name leaves the one that replaces the guard.
const (
	// StandbyArgument is its argument 0.
	StandbyArgument = "openshell-standby"
	// StandbyName is its name, see PR_SET_NAME; the kernel keeps 15 bytes.
	StandbyName = "openshell-wait"
)

// The verbs of openshell-refresher and its flags.
const (
	// RefresherOnce makes the credentials of the named providers, RefresherServe those of
	// the store for as long as a sandbox has some that expire.
	RefresherOnce  = "refresh"
	RefresherServe = "serve"
	// FlagStore names the folder of providers, FlagCAFile a file of certificates (PEM) that
	// token endpoints are verified with beside the system's.
	FlagStore  = "store"
	FlagCAFile = "ca-file"
	// FlagCredential and FlagDue are flags of RefresherOnce. FlagCredential limits it to one
	// credential, FlagDue to the credentials that are due.
	FlagCredential = "credential"
	FlagDue        = "due"
	// FlagLog is RefresherServe's: its log.
	FlagLog = "log"
)

// RefresherArgs returns the arguments of openshell-refresher for a verb, the folder of
// providers and files of certificates. The verb's own flags and arguments follow them.
func RefresherArgs(verb, store string, caFiles []string) []string {
	args := []string{verb, "--" + FlagStore, store}
	for _, f := range caFiles {
		args = append(args, "--"+FlagCAFile, f)
	}
	return args
}

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
