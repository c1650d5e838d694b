// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Signing is the way in which the proxy signs an endpoint's requests with the real
// credentials.
type Signing string

// The ways to sign. All of them are AWS Signature Version 4.
const (
	SigningNone Signing = ""
	// SigningAuto signs the body or not, as the client's x-amz-content-sha256 says.
	SigningAuto Signing = "sigv4"
	// SigningBody signs the body.
	SigningBody Signing = "sigv4:body"
	// SigningNoBody leaves the body out of the signature.
	SigningNoBody Signing = "sigv4:no_body"
)

// Credentials are the settings of an endpoint for the credentials in its traffic. They
// apply to the requests for which the endpoint is selected. Without a protocol, only
// AllowUninspected, AllowUnsearched and Provider apply. The zero value is the default of
// each field.
type Credentials struct {
	// BodyRewrite replaces placeholders by credentials in the bodies of requests, and
	// MessageRewrite in the text messages of WebSockets.
	BodyRewrite, MessageRewrite bool
	// AllowUninspected lets traffic pass that the proxy cannot search for placeholders.
	AllowUninspected bool
	// AllowUnsearched lets response bodies and messages of servers pass without a search
	// for credentials that they echo. OpenShell has no such field.
	AllowUnsearched bool
	// Signing requires Service. If Region is empty, it is taken from the host.
	Signing         Signing
	Service, Region string
	// Provider is the only provider whose credentials may be used at the endpoint. If it is
	// empty, every provider with this destination may be used.
	Provider string
}

// signingCharacters are the characters allowed in signing_service and signing_region.
const signingCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// credentialFields registers the fields of Credentials with the function field.
func (e *endpointReader) credentialFields(field func(name string, read func(v *yaml.Node, what string))) {
	c := &e.Credentials
	flag := func(name string, into *bool) {
		field(name, func(v *yaml.Node, what string) { *into = e.boolean(v, what) })
	}
	text := func(name string, set func(string)) {
		field(name, func(v *yaml.Node, what string) { set(e.str(v, what)) })
	}
	flag("request_body_credential_rewrite", &c.BodyRewrite)
	flag("websocket_credential_rewrite", &c.MessageRewrite)
	flag("allow_uninspected_credentials", &c.AllowUninspected)
	flag("allow_unsearched_answers", &c.AllowUnsearched)
	text("credential_signing", func(s string) { c.Signing = Signing(s) })
	text("signing_service", func(s string) { c.Service = s })
	text("signing_region", func(s string) { c.Region = s })
	field("credential_binding", func(v *yaml.Node, what string) {
		if null(v) {
			delete(e.at, "credential_binding")
			return
		}
		e.fields(v, what, map[string]func(*yaml.Node){
			"provider": func(v *yaml.Node) { c.Provider = e.str(v, what+".provider") },
		})
	})
}

// validateCredentials checks the fields of Credentials together.
func (e *endpointReader) validateCredentials() {
	c := &e.Credentials
	switch c.Signing {
	case SigningNone, SigningAuto, SigningBody, SigningNoBody:
	default:
		e.fail(e.place("credential_signing"), e.about("endpoint '%s' has unrecognized credential_signing value '%s' (expected sigv4, sigv4:body, or sigv4:no_body)", e.Host, c.Signing), "")
	}
	if c.Signing != SigningNone && c.Service == "" {
		e.fail(e.place("credential_signing"), e.about("endpoint '%s' has credential_signing set but signing_service is empty", e.Host), "")
	}
	if c.Signing != SigningNone && c.BodyRewrite {
		e.fail(e.place("request_body_credential_rewrite"), e.about("endpoint '%s' has both credential_signing and request_body_credential_rewrite set; these options are mutually exclusive", e.Host), "")
	}
	if c.MessageRewrite && e.Protocol == ProtocolREST {
		e.note(e.place("websocket_credential_rewrite"), "websocket_credential_rewrite with protocol: rest", "it lets requests become WebSockets")
	}
	for _, f := range []said{{field: "signing_service", value: c.Service}, {field: "signing_region", value: c.Region}} {
		// The values become part of a header and of the signed text.
		if len(f.value) > MaxKey || strings.Trim(f.value, signingCharacters) != "" {
			e.fail(e.place(f.field), e.about("endpoint '%s' has a %s with other characters than letters, digits and -._, or of more than %d bytes", e.Host, f.field, MaxKey), "")
		}
	}
	if binding, ok := e.at["credential_binding"]; ok {
		switch p := c.Provider; {
		case p == "":
			e.fail(binding, fmt.Sprintf("credential_binding.provider is required for endpoint '%s'", e.Host), "")
		case strings.TrimSpace(p) != p:
			e.fail(binding, fmt.Sprintf("credential_binding.provider '%s' must not contain leading or trailing whitespace", p), "")
		case len(p) > MaxKey:
			e.fail(binding, fmt.Sprintf("credential_binding.provider is longer than %d bytes", MaxKey), "")
		}
	}
}

// Attached is a provider that is attached to the sandbox, for [Policy.CheckBindings].
type Attached struct {
	Name string
	// Keys are the names of the environment variables that hold the provider's placeholders
	// in the sandbox.
	Keys []string
	// Endpoints are the destinations of the credentials. If it is empty, they are the
	// endpoints of the policy that name the provider in credential_binding.
	Endpoints []AttachedEndpoint
}

// AttachedEndpoint is a destination of a provider's credentials.
type AttachedEndpoint struct {
	// Host is a glob as in [CompileGlob].
	Host  string
	Ports []uint16
	// Path is a prefix of whole path segments. If it is empty, it matches every path.
	Path string
}

// CheckBindings compares the document with the attached providers. It fails if an endpoint
// binds a provider that is not attached, or has credential_signing and no provider with AWS
// keys has the endpoint as a destination.
func (p *Policy) CheckBindings(attached []Attached) error {
	var errs []error
	for i := range p.Network {
		for j := range p.Network[i].Endpoints {
			e := &p.Network[i].Endpoints[j]
			name := e.Credentials.Provider
			switch {
			case name != "" && !slices.ContainsFunc(attached, func(a Attached) bool { return a.Name == name }):
				errs = append(errs, fmt.Errorf("line %d: credential_binding references provider '%s', but that provider is not attached to the sandbox", e.Line, name))
			case e.Credentials.Signing != SigningNone && !slices.ContainsFunc(attached, func(a Attached) bool { return a.signs(e) }):
				errs = append(errs, fmt.Errorf("line %d: credential_signing at endpoint '%s' needs an attached provider that has %s and covers each host, port and path of the endpoint", e.Line, e.Host, strings.Join(signingKeys, " and ")))
			}
		}
	}
	return errors.Join(errs...)
}

// signingKeys are the keys that every AWS signature needs.
var signingKeys = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}

// signs reports whether the provider has the keys to sign the requests of e.
func (a *Attached) signs(e *Endpoint) bool {
	for _, key := range signingKeys {
		if !slices.Contains(a.Keys, key) {
			return false
		}
	}
	if name := e.Credentials.Provider; name != "" && name != a.Name {
		return false
	}
	if len(a.Endpoints) == 0 {
		return a.Name == e.Credentials.Provider
	}
	for _, port := range e.Ports {
		if !slices.ContainsFunc(a.Endpoints, func(c AttachedEndpoint) bool { return c.covers(e, port) }) {
			return false
		}
	}
	return true
}

// anyName replaces the wildcards in an endpoint's host by labels that only a wildcard
// matches. It replaces ** by more labels than the host globs of profiles have.
var anyName = strings.NewReplacer("**", strings.Repeat("\x00.", 7)+"\x00", "*", "\x00")

// covers reports whether c covers all hosts and paths of e, at one port of e.
func (c *AttachedEndpoint) covers(e *Endpoint, port uint16) bool {
	glob, err := CompileGlob(c.Host, '.')
	if err != nil || !glob.Match(anyName.Replace(e.Host)) || !slices.Contains(c.Ports, port) {
		return false
	}
	reach := strings.TrimSuffix(strings.TrimSuffix(c.Path, "**"), "/")
	return reach == "" || e.Path == reach || strings.HasPrefix(e.Path, reach+"/")
}

// says returns the settings that ambiguities compares, with OpenShell's names.
func (c *Credentials) says() []said {
	return []said{
		{field: "websocket_credential_rewrite", value: fmt.Sprint(c.MessageRewrite)},
		{field: "request_body_credential_rewrite", value: fmt.Sprint(c.BodyRewrite)},
		{field: "allow_unsearched_answers", value: fmt.Sprint(c.AllowUnsearched)},
		{field: "credential_signing", value: fmt.Sprintf("%q", c.Signing)},
		{field: "signing_service", value: fmt.Sprintf("%q", c.Service)},
		{field: "signing_region", value: fmt.Sprintf("%q", c.Region)},
		{field: "credential_binding.provider", value: fmt.Sprintf("%q", c.Provider)},
	}
}

// credentials warns of fields that have no effect.
func (l *linter) credentials(e *Endpoint) {
	c := &e.Credentials
	rest, websocket := e.Protocol == ProtocolREST, e.Protocol == ProtocolWebSocket
	if c.MessageRewrite && !rest && !websocket {
		l.warn(e.Line, "websocket_credential_rewrite is ignored unless protocol is rest or websocket")
	}
	if c.BodyRewrite && !rest {
		l.warn(e.Line, "request_body_credential_rewrite is ignored unless protocol is rest")
	}
	if c.Signing != SigningNone && !rest && !websocket {
		l.warn(e.Line, "credential_signing is ignored unless protocol is rest or websocket")
	}
	if c.Signing == SigningNone && c.Service+c.Region != "" {
		l.warn(e.Line, "signing_service and signing_region have no effect without credential_signing")
	}
	if c.Provider != "" && e.Path != "" && !rest && !websocket {
		l.warn(e.Line, "credential_binding with path is ignored unless protocol is rest or websocket: paths are not looked at")
	}
	if c.Provider != "" && (e.Protocol == ProtocolTCP || e.TLSSkip) {
		l.warn(e.Line, "credential_binding has no effect: the proxy does not read this traffic, so it inserts no credential")
	}
	if c.AllowUninspected {
		l.warn(e.Line, "allow_uninspected_credentials lets traffic that cannot be searched pass to an endpoint with credentials")
	}
	if c.AllowUnsearched {
		l.warn(e.Line, "allow_unsearched_answers lets the endpoint's answers show credentials to the sandbox")
	}
}
