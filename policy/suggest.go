// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Change is an addition to a document, as [Suggest] proposes it.
type Change struct {
	// Where names the list or mapping to extend. Line is the line of the entry that
	// contains it; 0 if the document does not have the entry.
	Where string
	Line  int
	// YAML is the text to add.
	YAML string
}

// SuggestOptions are the settings of [Suggest]. The zero value is valid.
type SuggestOptions struct {
	CompileOptions
	// EveryProgram makes the suggestion name the binary /** instead of the request's
	// program. It is for sandboxes whose programs can trace each other, which reject
	// policies that name a program. The default is false.
	EveryProgram bool
}

// Suggest returns the smallest addition to the document that allows r. It has tried the
// result: the extended document compiles and allows r. It returns false if no addition
// allows r, for example because a deny rule matches.
func Suggest(p *Policy, so SuggestOptions, r *Request) (Change, bool) {
	o, program := so.CompileOptions, r.Binary
	if so.EveryProgram {
		program = everyProgram
	}
	for _, c := range candidateChanges(p, o, r, program) {
		changed := &Policy{Network: slices.Clone(p.Network)}
		for i := range changed.Network {
			n := &changed.Network[i]
			n.Endpoints, n.Binaries = slices.Clone(n.Endpoints), slices.Clone(n.Binaries)
		}
		c.apply(changed)
		e, err := Compile(changed, o)
		if err != nil || e.Decide(r).Verdict != Allow {
			continue
		}
		if c.YAML, err = encodeYAML(c.add); err == nil {
			return c.Change, true
		}
	}
	return Change{}, false
}

func encodeYAML(v any) (string, error) {
	var text strings.Builder
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(v), enc.Close())
	return text.String(), err
}

type candidateChange struct {
	Change
	add   any
	apply func(*Policy)
}

// candidateChanges returns the possible changes, the smallest first. They name program as
// the binary.
func candidateChanges(p *Policy, o CompileOptions, r *Request, program string) (out []candidateChange) {
	ep := Endpoint{Host: r.Host, Ports: []uint16{r.Port}}
	if r.HTTP != nil {
		ep.Protocol, ep.Enforcement = ProtocolREST, EnforcementBlock
		if r.HTTP.WebSocket {
			ep.Protocol = ProtocolWebSocket
		}
	}
	for i := range p.Network {
		n := &p.Network[i]
		where := "network_policies." + n.Key
		mayUse := false
		if s, err := compileBinaries(n.Binaries, o.Aliases); err == nil {
			mayUse = s.match(r)
		}
		similar := false
		for j := range n.Endpoints {
			old := &n.Endpoints[j]
			compiled, err := compileEndpoint(old, o)
			if err != nil || !compiled.matches(r.Host, r.Port) {
				continue
			}
			if r.HTTP != nil && mayUse && compiled.judged && len(old.Rules) > 0 {
				out = append(out, candidateChange{
					Change{Where: fmt.Sprintf("%s.endpoints[%d].rules", where, j), Line: old.Line},
					[]allowYAML{{ruleFor(r)}},
					func(p *Policy) {
						e := &p.Network[i].Endpoints[j]
						e.Rules = append(slices.Clone(e.Rules), Rule{Method: r.HTTP.Method, Path: escapeGlob(r.HTTP.Path)})
					},
				})
			}
			// Endpoints that overlap must agree on their other settings.
			ep, similar = *old, true
			ep.Host, ep.Ports = r.Host, []uint16{r.Port}
		}
		if similar && !mayUse {
			out = append(out, candidateChange{
				Change{Where: where + ".binaries", Line: n.Line},
				[]binaryYAML{{program}},
				func(p *Policy) {
					n := &p.Network[i]
					n.Binaries = append(n.Binaries, Binary{Path: program})
				},
			})
		}
		if similar && mayUse && r.HTTP != nil {
			more := narrowed(ep, r)
			out = append(out, candidateChange{
				Change{Where: where + ".endpoints", Line: n.Line},
				[]endpointYAML{toYAML(more)},
				func(p *Policy) {
					n := &p.Network[i]
					n.Endpoints = append(n.Endpoints, more)
				},
			})
		}
	}
	ep = narrowed(ep, r)
	n := NetworkPolicy{Key: freeKey(p, r.Host), Endpoints: []Endpoint{ep}, Binaries: []Binary{{Path: program}}}
	return append(out, candidateChange{
		Change{Where: "network_policies"},
		map[string]policyYAML{n.Key: {[]endpointYAML{toYAML(ep)}, []binaryYAML{{program}}}},
		func(p *Policy) { p.Network = append(p.Network, n) },
	})
}

// narrowed returns a copy of ep that allows only r.
func narrowed(ep Endpoint, r *Request) Endpoint {
	ep.Access, ep.Rules, ep.DenyRules = AccessNone, nil, nil
	if !ep.Protocol.judges() {
		return ep
	}
	if r.HTTP == nil {
		ep.Access = AccessReadOnly
		return ep
	}
	ep.Rules = []Rule{{Method: r.HTTP.Method, Path: escapeGlob(r.HTTP.Path)}}
	if strings.Contains(r.HTTP.Path, "%2F") && !ep.AllowEncodedSlash {
		ep.AllowEncodedSlash, ep.Path = true, strings.ReplaceAll(r.HTTP.Path, "*", "%2A") // a literal * in both dialects
	} else if s := newSelector(ep.Path); !s.match(r.HTTP.Path) {
		ep.Path = ""
	}
	return ep
}

// escapeGlob returns the pattern that matches only path.
func escapeGlob(path string) string {
	var out strings.Builder
	for i := range len(path) {
		if strings.IndexByte(`*?[]{},\`, path[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(path[i])
	}
	return out.String()
}

// freeKey returns a key for a policy about host that no entry has.
func freeKey(p *Policy, host string) string {
	key := strings.Map(func(r rune) rune {
		if r < 0x80 && alnum(byte(r)) {
			return r
		}
		return '_'
	}, host)
	if strings.HasPrefix(key, providerKey) {
		key = "host" + key
	}
	taken := func(n NetworkPolicy) bool { return n.Key == key }
	for slices.ContainsFunc(p.Network, taken) {
		key += "_"
	}
	return key
}

// The YAML of a Change, with the schema's field names.
type (
	policyYAML struct {
		Endpoints []endpointYAML `yaml:"endpoints"`
		Binaries  []binaryYAML   `yaml:"binaries"`
	}
	binaryYAML struct {
		Path string `yaml:"path"`
	}
	endpointYAML struct {
		Host              string      `yaml:"host"`
		Port              uint16      `yaml:"port"`
		Path              string      `yaml:"path,omitempty"`
		Protocol          Protocol    `yaml:"protocol,omitempty"`
		TLS               string      `yaml:"tls,omitempty"`
		Enforcement       Enforcement `yaml:"enforcement,omitempty"`
		AllowedIPs        []string    `yaml:"allowed_ips,omitempty"`
		AllowEncodedSlash bool        `yaml:"allow_encoded_slash,omitempty"`
		Access            Access      `yaml:"access,omitempty"`
		Rules             []allowYAML `yaml:"rules,omitempty"`

		BodyRewrite      bool         `yaml:"request_body_credential_rewrite,omitempty"`
		MessageRewrite   bool         `yaml:"websocket_credential_rewrite,omitempty"`
		AllowUninspected bool         `yaml:"allow_uninspected_credentials,omitempty"`
		AllowUnsearched  bool         `yaml:"allow_unsearched_answers,omitempty"`
		Signing          Signing      `yaml:"credential_signing,omitempty"`
		Service          string       `yaml:"signing_service,omitempty"`
		Region           string       `yaml:"signing_region,omitempty"`
		Binding          *bindingYAML `yaml:"credential_binding,omitempty"`
	}
	bindingYAML struct {
		Provider string `yaml:"provider"`
	}
	allowYAML struct {
		Allow ruleYAML `yaml:"allow"`
	}
	ruleYAML struct {
		Method string `yaml:"method"`
		Path   string `yaml:"path"`
	}
)

func ruleFor(r *Request) ruleYAML {
	return ruleYAML{strings.ToUpper(r.HTTP.Method), escapeGlob(r.HTTP.Path)}
}

func toYAML(ep Endpoint) endpointYAML {
	c := ep.Credentials
	out := endpointYAML{
		Host: ep.Host, Port: ep.Ports[0], Path: ep.Path, Protocol: ep.Protocol, Enforcement: ep.Enforcement,
		AllowedIPs: ep.AllowedIPs, AllowEncodedSlash: ep.AllowEncodedSlash, Access: ep.Access,
		BodyRewrite: c.BodyRewrite, MessageRewrite: c.MessageRewrite, AllowUninspected: c.AllowUninspected, AllowUnsearched: c.AllowUnsearched,
		Signing: c.Signing, Service: c.Service, Region: c.Region,
	}
	if c.Provider != "" {
		out.Binding = &bindingYAML{c.Provider}
	}
	if ep.TLSSkip {
		out.TLS = "skip"
	}
	for _, r := range ep.Rules {
		out.Rules = append(out.Rules, allowYAML{ruleYAML{strings.ToUpper(r.Method), r.Path}})
	}
	return out
}
