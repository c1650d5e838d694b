// SPDX-License-Identifier: Apache-2.0

// Package handoff is what the runtime hands the proxy: one versioned value,
// passed as JSON through an inherited file descriptor, and the names of the
// other descriptors inherited with it.
//
// Everything the proxy knows about its sandbox is in here; its environment is
// empty and its arguments carry no facts, so nothing of the image or of the
// caller's environment can reach it another way.
package handoff

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
)

// Version is the format of Config. A reader refuses any other.
const Version = 1

// MaxSize bounds the encoded Config, in bytes: a 4 MiB policy and its escapes.
const MaxSize = 16 << 20

// Egress says in which network namespace the proxy dials.
type Egress string

const (
	// EgressNamespace dials in the container's own namespace, with the mark.
	EgressNamespace Egress = "namespace"
	// EgressHost dials in the namespace the proxy was started in, because the
	// container's has no uplink (a run without an engine).
	EgressHost Egress = "host"
)

// FD is the number of an inherited descriptor.
type FD int

// FDs are the descriptors the proxy inherits; zero means absent.
type FDs struct {
	// TCP are listening stream sockets inside the container's namespace.
	TCP []FD `json:"tcp"`
	// DNSUDP are bound datagram sockets inside the container's namespace.
	DNSUDP []FD `json:"dns_udp"`
	// DNSTCP are listening stream sockets inside the container's namespace.
	DNSTCP []FD `json:"dns_tcp"`
	// SockDiag is a NETLINK_SOCK_DIAG socket of the container's namespace.
	SockDiag FD `json:"sock_diag"`
	// Control is the listening unix socket of the control interface.
	Control FD `json:"control"`
	// Ready is written one byte once the worker serves, or an error text.
	Ready FD `json:"ready"`
	// Init is a pidfd of the container's first process.
	Init FD `json:"init"`
}

// Host is one entry of the hosts file the engine gave the container,
// snapshotted before anything of the image ran.
type Host struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs"`
}

// Resolver is how the proxy resolves names: the namespace's own resolver.
type Resolver struct {
	Nameservers []netip.AddrPort `json:"nameservers"`
}

// Config is everything the proxy knows about its sandbox.
type Config struct {
	Version int `json:"version"`
	// Container is the container's ID, as written in every record.
	Container string `json:"container"`
	// StateDir is the sandbox's own directory, 0700, on the host.
	StateDir string `json:"state_dir"`
	// Policy is the text of the first revision; later ones are in StateDir.
	Policy string `json:"policy"`
	// PolicyName is where Policy came from, for messages.
	PolicyName string `json:"policy_name"`
	// EnforceUnspecified makes an endpoint without `enforcement` enforce.
	EnforceUnspecified bool   `json:"enforce_unspecified"`
	Egress             Egress `json:"egress"`
	// Mark is the SO_MARK of the proxy's own sockets (EgressNamespace only).
	Mark uint32 `json:"mark"`
	// InitPID is the container's first process, in the proxy's PID namespace.
	InitPID int `json:"init_pid"`
	// Cgroups are the container's cgroup directories, one per hierarchy.
	Cgroups  []string `json:"cgroups"`
	Hosts    []Host   `json:"hosts"`
	Resolver Resolver `json:"resolver"`
	// CACert and CAKey are PEM, the sandbox's own authority.
	CACert string `json:"ca_cert"`
	CAKey  string `json:"ca_key"`
	// UpstreamCAs are PEM roots added to the system's for verifying upstreams.
	UpstreamCAs string `json:"upstream_cas"`
	// RecordFile is where decisions are written.
	RecordFile string `json:"record_file"`
	// UID and GID the worker runs as; 0 means root.
	UID int `json:"uid"`
	GID int `json:"gid"`
	FDs FDs `json:"fds"`
}

// Write encodes c.
func Write(w io.Writer, c *Config) error {
	c.Version = Version
	if err := json.NewEncoder(w).Encode(c); err != nil {
		return fmt.Errorf("encode proxy config: %w", err)
	}
	return nil
}

// Read decodes one Config and refuses unknown fields and other versions.
func Read(r io.Reader) (*Config, error) {
	d := json.NewDecoder(io.LimitReader(r, MaxSize))
	d.DisallowUnknownFields()
	var c Config
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("decode proxy config: %w", err)
	}
	if c.Version != Version {
		return nil, fmt.Errorf("proxy config has version %d, this proxy reads %d: runtime and proxy are of different builds", c.Version, Version)
	}
	return &c, nil
}
