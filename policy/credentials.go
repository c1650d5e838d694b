// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// Signing is how an endpoint's requests are signed anew.
type Signing string

// The ways to sign, all AWS Signature Version 4.
const (
	SigningNone Signing = ""
	// SigningAuto does what the client's x-amz-content-sha256 says.
	SigningAuto Signing = "sigv4"
	// SigningBody signs the body.
	SigningBody Signing = "sigv4:body"
	// SigningNoBody leaves the body out of the signature.
	SigningNoBody Signing = "sigv4:no_body"
)

// Credentials is what an endpoint says about credentials in what is sent to it.
// They count for the requests that the endpoint answers; without a protocol only
// AllowUninspected, AllowUnsearched and Provider do.
type Credentials struct {
	// BodyRewrite puts them into bodies, MessageRewrite into the text messages of
	// WebSockets.
	BodyRewrite, MessageRewrite bool
	// AllowUninspected lets pass what cannot be searched for them.
	AllowUninspected bool
	// AllowUnsearched lets the bodies of answers, and the messages of servers, pass
	// without a search for credentials that they echo. OpenShell has no such field.
	AllowUnsearched bool
	// Signing needs Service; without Region the host says it.
	Signing         Signing
	Service, Region string
	// Provider is the only one whose credentials may go there; empty is each that
	// belongs there.
	Provider string
}

// signingCharacters are those of a signing_service or signing_region.
const signingCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// credentialFields reads the fields of Credentials.
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

// validateCredentials judges the fields of Credentials together.
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
		// They become part of a header and of what is signed.
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

// CheckBindings fails if an endpoint binds a provider that is not attached to the
// sandbox, which a document alone cannot tell.
func (p *Policy) CheckBindings(attached func(provider string) bool) error {
	var errs []error
	for i := range p.Network {
		for _, e := range p.Network[i].Endpoints {
			if name := e.Credentials.Provider; name != "" && !attached(name) {
				errs = append(errs, fmt.Errorf("line %d: credential_binding references provider '%s', but that provider is not attached to the sandbox", e.Line, name))
			}
		}
	}
	return errors.Join(errs...)
}

// says is what ambiguities compares, in OpenShell's names.
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

// credentials warns of fields that mean nothing where they stand.
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
		l.warn(e.Line, "signing_service and signing_region mean nothing without credential_signing")
	}
	if c.Provider != "" && e.Path != "" && !rest && !websocket {
		l.warn(e.Line, "credential_binding with path is ignored unless protocol is rest or websocket: paths are not looked at")
	}
	if c.Provider != "" && (e.Protocol == ProtocolTCP || e.TLSSkip) {
		l.warn(e.Line, "credential_binding where nothing is looked at: no credential is put in")
	}
	if c.AllowUninspected {
		l.warn(e.Line, "allow_uninspected_credentials lets what cannot be searched pass to an endpoint that has credentials")
	}
	if c.AllowUnsearched {
		l.warn(e.Line, "allow_unsearched_answers lets the endpoint's answers show credentials to the sandbox")
	}
}
