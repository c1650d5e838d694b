// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The messages in this file are OpenShell's, where it has one for the error.

// about returns a message about the endpoint's host.
func (e *endpointReader) about(format string, args ...any) string {
	return fmt.Sprintf("network policy '%s': ", e.policy) + fmt.Sprintf(format, args...)
}

// invalid returns a message about the endpoint's L7 fields.
func (e *endpointReader) invalid(reason string) string {
	return e.where() + " has invalid L7 configuration: " + reason
}

// port reads one port. It accepts only plain decimal numbers, because YAML readers differ
// in what 0443 and 0x1bb are.
func (e *endpointReader) port(n *yaml.Node) uint16 {
	p, err := strconv.ParseUint(n.Value, 10, 16)
	if n.Tag != "!!int" || err != nil || p == 0 || n.Value[0] == '0' {
		e.fail(n, e.about("endpoint '%s' has invalid port %s; expected 1..=65535", e.Host, n.Value), "")
	}
	return uint16(p)
}

// validate checks the fields together. It is called only if each of them could be read.
func (e *endpointReader) validate() {
	e.validateHost()
	if len(e.Ports) == 0 {
		e.fail(e.node, e.about("endpoint '%s' must declare at least one port", e.Host), "")
	}
	if e.Path != "" {
		if e.Path[0] != '/' && e.Path != "**" {
			e.fail(e.place("path"), e.invalid("path must start with '/' or be '**'"), "")
		}
		e.pathGlob(e.place("path"), e.Path)
	}
	e.validateL7()
	e.validateCredentials()
}

func (e *endpointReader) validateHost() {
	tcp := e.Protocol == ProtocolTCP
	at := e.place("host")
	switch {
	case strings.TrimSpace(e.Host) == "" && tcp:
		e.fail(at, e.about("protocol tcp requires a DNS hostname; hostless allowed_ips endpoints are supported only by the forward proxy"), "")
		return
	case strings.TrimSpace(e.Host) == "" && len(e.AllowedIPs) == 0:
		e.fail(at, e.about("endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint"), "")
		return
	case e.Host == "":
		return
	}
	if a, err := netip.ParseAddr(e.Host); err == nil {
		if tcp {
			e.fail(at, e.about("protocol tcp endpoint '%s' must use a DNS hostname, not an IP literal; direct IP connections bypass policy DNS and are blocked", e.Host), "")
		}
		e.Host = a.Unmap().String() // the spelling of NormalizeHost
		return
	}
	e.validateHostWildcard(at)
	if !tcp {
		return
	}
	reason := ""
	switch _, err := NormalizeHost(strings.NewReplacer("**", "x", "*", "x").Replace(e.Host)); {
	case strings.TrimSpace(e.Host) != e.Host:
		reason = "leading or trailing whitespace is not allowed"
	case strings.HasSuffix(e.Host, "."):
		reason = "omit the trailing DNS root dot"
	case err != nil:
		reason = "selector cannot represent a valid DNS name: " + err.Error()
	default:
		return
	}
	e.fail(at, e.about("protocol tcp endpoint has invalid DNS host selector '%s': %s", e.Host, reason), "")
}

func (e *endpointReader) validateHostWildcard(at *yaml.Node) {
	if !strings.Contains(e.Host, "*") {
		// Without a * OpenShell does not treat the host as a pattern, so it would match no
		// name.
		if strings.ContainsAny(e.Host, `?[{\`) || !isASCII(e.Host) {
			e.fail(at, e.about("host '%s' has a character that is not valid in a name, and without a * it is not a pattern", e.Host), "")
		}
		return
	}
	labels := strings.Split(e.Host, ".")
	bad := strings.Contains(labels[0], "**") && labels[0] != "**"
	for _, l := range labels[1:] {
		bad = bad || strings.Contains(l, "*") && l != "*"
	}
	switch {
	case bad || e.Host == "*" || e.Host == "**":
		e.fail(at, e.about("invalid host wildcard '%s'; middle DNS label wildcards must be the entire label '*' and recursive '**' is only allowed as the entire first label", e.Host), "")
	case len(labels) <= 2:
		e.fail(at, e.about("TLD wildcard '%s' is not allowed; use subdomain wildcards like '*.example.com' instead", e.Host), "")
	default:
		e.glob(at, e.Host, '.')
	}
}

func (e *endpointReader) validateL7() {
	judged := e.Protocol.judges()
	rules, denies, preset := len(e.Rules) > 0, len(e.DenyRules) > 0, e.Access != AccessNone
	if e.Protocol == ProtocolTCP {
		e.validateTCP()
	}
	if rules && preset {
		e.fail(e.place("access"), e.invalid("rules and access are mutually exclusive"), "")
	}
	if judged && !rules && !preset {
		e.fail(e.node, e.invalid("protocol requires rules or access to define allowed traffic"), "")
	}
	if rules && allEmpty(e.Rules) {
		e.fail(e.place("rules"), e.invalid("rules would deny all traffic (no allow clause found). Use `access: full` or add allow clauses to rules."), "")
	}
	if judged && e.TLSSkip && e.Enforcement == EnforcementBlock {
		e.fail(e.place("tls"), e.invalid(skippedRules), "remove tls: skip, or the protocol and its rules")
	}
	if denies && !judged {
		e.fail(e.place("deny_rules"), e.invalid("deny_rules require protocol (L7 inspection must be enabled)"), "")
	}
	if denies && !rules && !preset {
		e.fail(e.place("deny_rules"), e.invalid("deny_rules require rules or access to define the base allow set"), "")
	}
}

// skippedRules says why an endpoint cannot have both tls: skip and enforced rules.
const skippedRules = "with tls: skip the requests inside TLS are not judged, so the rules would block nothing although enforcement is enforce"

// validateTCP refuses the fields that need the content of the connection.
func (e *endpointReader) validateTCP() {
	if e.Access != AccessNone || len(e.Rules) > 0 || len(e.DenyRules) > 0 {
		e.fail(e.place("protocol"), e.invalid("protocol tcp does not support access, rules, or deny_rules; remove those L7 fields"), "")
	}
	var more []string
	if e.Enforcement != EnforcementUnset {
		more = append(more, "enforcement")
	}
	if e.Path != "" {
		more = append(more, "path")
	}
	if e.AllowEncodedSlash {
		more = append(more, "allow_encoded_slash")
	}
	if e.Credentials.MessageRewrite {
		more = append(more, "websocket_credential_rewrite")
	}
	if e.Credentials.BodyRewrite {
		more = append(more, "request_body_credential_rewrite")
	}
	if e.Credentials.Signing != SigningNone {
		more = append(more, "credential_signing")
	}
	if len(more) > 0 {
		e.fail(e.place(more[0]), e.invalid(fmt.Sprintf("protocol tcp does not support L7-only fields: %s; remove those fields", strings.Join(more, ", "))), "")
	}
}

func allEmpty(rules []Rule) bool {
	for _, r := range rules {
		if r.Method != "" || r.Path != "" {
			return false
		}
	}
	return true
}
