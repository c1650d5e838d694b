// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// entry is an entry of network_policies together with the YAML nodes of its endpoints.
type entry struct {
	NetworkPolicy
	nodes []*yaml.Node
}

// providerKey is the prefix of the keys that OpenShell gives to rules which it generates
// from a provider's profile.
const providerKey = "_provider_"

func (r *reader) network(n *yaml.Node) []NetworkPolicy {
	var entries []entry
	count := 0
	r.entries(n, "network_policies", func(k, v *yaml.Node) {
		switch {
		case k.Value == "":
			r.fail(k, "a network policy needs a name", "")
		case strings.HasPrefix(k.Value, providerKey):
			r.fail(k, `rule keys that begin with "`+providerKey+`" are reserved`, "choose another key for "+k.Value)
		case r.more(&count, MaxPolicies, k, "network policies"):
			entries = append(entries, r.entry(k, v))
		}
	})
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.Key, b.Key) })
	if len(r.errs) == 0 {
		r.ambiguities(entries)
	}
	var policies []NetworkPolicy
	for _, e := range entries {
		policies = append(policies, e.NetworkPolicy)
	}
	return policies
}

func (r *reader) entry(k, n *yaml.Node) entry {
	where := "network_policies." + k.Value
	e := entry{NetworkPolicy: NetworkPolicy{Key: k.Value, Name: k.Value, Line: k.Line}}
	var endpoints *yaml.Node
	r.fields(n, where, map[string]func(*yaml.Node){
		"name": func(v *yaml.Node) {
			switch s := r.str(v, where+".name"); {
			case len(s) > MaxKey:
				r.fail(v, fmt.Sprintf("%s.name is longer than %d bytes", where, MaxKey), "")
			case s != "":
				e.Name = s
			}
		},
		"endpoints": func(v *yaml.Node) { endpoints = v },
		"binaries": func(v *yaml.Node) {
			for _, b := range r.list(v, where+".binaries", MaxBinaries) {
				if r.more(&r.binaries, MaxBinaries, b, "binaries") {
					e.Binaries = append(e.Binaries, r.binary(b, where+".binaries"))
				}
			}
		},
	})
	if endpoints == nil {
		return e
	}
	// The endpoints are read last: messages about them contain the name.
	for i, v := range r.list(endpoints, where+".endpoints", MaxEndpoints) {
		if r.full() || !r.more(&r.endpoints, MaxEndpoints, v, "endpoints") {
			break
		}
		e.Endpoints = append(e.Endpoints, r.endpoint(v, e.Name, i))
		e.nodes = append(e.nodes, v)
	}
	return e
}

func (r *reader) binary(n *yaml.Node, where string) Binary {
	b := Binary{Line: n.Line}
	at := n
	if n.Kind == yaml.MappingNode {
		r.fields(n, where, map[string]func(*yaml.Node){
			"path": func(v *yaml.Node) { at, b.Path = v, r.str(v, where+".path") },
			"harness": func(v *yaml.Node) {
				r.str(v, where+".harness")
				r.note(v, "harness", "it has no effect")
			},
		})
	} else {
		b.Path = r.str(n, where)
	}
	switch {
	case b.Path == "":
		r.fail(n, "a binary of "+where+" has no path", "")
	case len(b.Path) > MaxPathLength:
		r.fail(at, badPath(b.Path, false), "")
	case strings.Contains(b.Path, "*"): // without one it is no pattern
		r.glob(at, b.Path, '/')
	}
	return b
}

// glob reports an error in a pattern. OpenShell finds it only when it judges a connection,
// and then denies.
func (r *reader) glob(n *yaml.Node, pattern string, sep byte) {
	_, err := CompileGlob(pattern, sep)
	r.pattern(n, err)
}

// pattern reports err, the error of a pattern, unless it is nil.
func (r *reader) pattern(n *yaml.Node, err error) {
	if err != nil {
		r.fail(n, err.Error(), "")
	}
}

func (r *reader) pathGlob(n *yaml.Node, pattern string) {
	_, err := compilePath(pattern)
	r.pattern(n, err)
}

// endpointReader reads one endpoint.
type endpointReader struct {
	*reader
	// policy is the policy's name, and index the endpoint's index in it.
	policy string
	index  int
	// node is the endpoint, and at maps the names of its fields to their nodes.
	node *yaml.Node
	at   map[string]*yaml.Node
	// known maps field names to the functions that read them. It is made once for all
	// endpoints.
	known map[string]func(*yaml.Node)
	Endpoint
}

func (r *reader) endpoint(n *yaml.Node, policy string, index int) Endpoint {
	e := r.reading
	if e == nil {
		e = &endpointReader{reader: r, at: map[string]*yaml.Node{}}
		e.known = e.fieldsOfEndpoint()
		r.reading = e
	}
	clear(e.at)
	e.policy, e.index, e.node, e.Endpoint = policy, index, n, Endpoint{Line: n.Line}
	errs := len(e.errs)
	e.fields(n, e.where(), e.known)
	e.ports()
	if len(e.errs) == errs {
		e.validate()
	}
	return e.Endpoint
}

func (e *endpointReader) fieldsOfEndpoint() map[string]func(*yaml.Node) {
	known := map[string]func(*yaml.Node){}
	field := func(name string, read func(v *yaml.Node, what string)) {
		known[name] = func(v *yaml.Node) {
			e.at[name] = v
			read(v, e.where()+": "+name)
		}
	}
	field("host", func(v *yaml.Node, what string) { e.Host = asciiLower(e.str(v, what)) })
	// validate calls ports to read it, once the host is known.
	field("port", func(*yaml.Node, string) {})
	field("ports", func(*yaml.Node, string) {})
	field("path", func(v *yaml.Node, what string) { e.Path = e.str(v, what) })
	field("protocol", func(v *yaml.Node, what string) { e.protocol(v) })
	field("tls", func(v *yaml.Node, what string) { e.tls(v) })
	field("enforcement", func(v *yaml.Node, what string) {
		e.Enforcement = Enforcement(e.word(v, "enforcement", string(EnforcementAudit), string(EnforcementBlock)))
	})
	field("access", func(v *yaml.Node, what string) {
		e.Access = Access(e.word(v, "access", string(AccessReadOnly), string(AccessReadWrite), string(AccessFull)))
	})
	field("rules", func(v *yaml.Node, what string) { e.Rules = e.allowRules(v, what) })
	field("deny_rules", func(v *yaml.Node, what string) { e.DenyRules = e.denyRules(v, what) })
	field("allowed_ips", func(v *yaml.Node, what string) {
		for _, ip := range e.list(v, what, MaxAllowedIPs) {
			e.AllowedIPs = append(e.AllowedIPs, e.str(ip, what))
		}
	})
	field("allow_encoded_slash", func(v *yaml.Node, what string) { e.AllowEncodedSlash = e.boolean(v, what) })
	e.credentialFields(field)
	for name, tag := range unenforcedEndpoint {
		field(name, func(v *yaml.Node, what string) { e.unset(v, what, tag) })
	}
	return known
}

func (e *endpointReader) where() string {
	return "network policy '" + e.policy + "': endpoint " + strconv.Itoa(e.index)
}

// place returns the node of a field, or of the endpoint if the field is absent.
func (e *endpointReader) place(field string) *yaml.Node {
	if n, ok := e.at[field]; ok {
		return n
	}
	return e.node
}

// tls reads the field tls. Without skip, the proxy detects TLS and terminates it where the
// rest of the policy requires that.
func (e *endpointReader) tls(n *yaml.Node) {
	switch s := e.str(n, "tls"); s {
	case "":
	case "skip":
		e.TLSSkip = true
	case "auto", "terminate", "passthrough":
		e.note(n, "tls: "+s, "it means the same as no tls field")
	default:
		fix := "remove the tls field to keep automatic TLS termination"
		if asciiLower(s) == "skip" {
			fix = `did you mean "skip"?`
		}
		e.fail(n, fmt.Sprintf("unsupported tls value %q", s), fix)
	}
}

// ports reads the fields port and ports. If both are set, ports counts, as in OpenShell
// 0.0.x.
func (e *endpointReader) ports() {
	single, list := e.at["port"], e.at["ports"]
	if single != nil && list != nil {
		e.note(single, "port beside ports", "ports counts")
	}
	if list != nil {
		for _, n := range e.list(list, e.where()+": ports", MaxPorts) {
			e.Ports = append(e.Ports, e.port(n))
		}
	}
	if single != nil && !(single.Tag == "!!int" && single.Value == "0") { // port: 0 means that no port is set
		if p := e.port(single); len(e.Ports) == 0 {
			e.Ports = []uint16{p}
		}
	}
}
