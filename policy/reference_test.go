// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// The reference decides as OpenShell's documentation of rules describes it: slowly, with
// regular expressions, and without the Engine's code except Destination.

type reference struct {
	p *Policy
	o CompileOptions
}

type referenceMatch struct {
	key string
	ep  *Endpoint
}

func (ref reference) decide(r *Request) Decision {
	d := Decision{Revision: ref.o.Revision}
	var matches []referenceMatch
	var misses []string
	for i := range ref.p.Network {
		n := &ref.p.Network[i]
		var here []referenceMatch
		for j := range n.Endpoints {
			if ep := &n.Endpoints[j]; refHost(ep, r.Host) && slices.Contains(ep.Ports, r.Port) {
				here = append(here, referenceMatch{n.Key, ep})
			}
		}
		if ref.binary(n, r) {
			matches = append(matches, here...)
		} else if len(here) > 0 {
			misses = append(misses, fmt.Sprintf("binary '%s' not allowed in policy '%s' (ancestors: [%s], cmdline: [])",
				r.Binary, n.Key, strings.Join(r.Ancestors, " -> ")))
		}
	}
	switch {
	case len(ref.p.Network) == 0:
		d.Reason = "network connections not allowed by policy"
		return d
	case len(matches) == 0 && len(misses) == 0:
		d.Reason = fmt.Sprintf("endpoint %s:%d is not allowed by any policy", r.Host, r.Port)
		return d
	case len(matches) == 0:
		d.Reason = strings.Join(misses, "; ")
		return d
	}
	d.Policy, d.Verdict = matches[0].key, Allow
	var config *Endpoint
	var l7 []*Endpoint
	d.TCP, d.Credentials.AllowUninspected = true, true
	host := matches[0].ep.Host
	for _, m := range slices.Backward(matches) {
		isConfig := m.ep.Protocol != ProtocolNone && m.ep.Protocol != ProtocolTCP || len(m.ep.AllowedIPs) > 0 || m.ep.TLSSkip || m.ep.Credentials.Provider != ""
		if isConfig {
			config = m.ep
		}
		d.TCP = d.TCP && m.ep.Protocol == ProtocolTCP
		if !m.ep.Credentials.AllowUninspected {
			d.Credentials.AllowUninspected = false
		}
		if m.ep.Host != "" && !strings.Contains(m.ep.Host, "*") {
			host = m.ep.Host
		}
	}
	for _, m := range matches {
		if m.ep.Protocol == "rest" || m.ep.Protocol == "websocket" {
			l7 = append(l7, m.ep)
			d.Inspect = true
			d.AllowEncodedSlash = d.AllowEncodedSlash || m.ep.AllowEncodedSlash
		}
	}
	var ips []string
	if config != nil {
		d.TLSSkip, ips = config.TLSSkip, config.AllowedIPs
		if config.Path == "" {
			d.Credentials.Provider = config.Credentials.Provider
		}
	}
	d.Destination, d.DestinationErr = NewDestination(host, ips)
	if d.DestinationErr != nil {
		d.Verdict, d.Reason = Deny, "invalid allowed_ips in policy: "+strings.TrimPrefix(d.DestinationErr.Error(), "allowed_ips: ")
		return d
	}
	if r.HTTP == nil || len(l7) == 0 {
		return d
	}
	var worst *Decision
	for i, m := range append([]Override{{}}, r.HTTP.Overrides...) {
		for j, p := range append([]Override{{}}, r.HTTP.Overrides...) {
			if i > 0 && m.Method == "" || j > 0 && p.Method != "" {
				continue
			}
			asked := *r
			asked.HTTP = &HTTP{Method: cmp.Or(m.Method, r.HTTP.Method), Path: r.HTTP.Path, RawQuery: r.HTTP.RawQuery, WebSocket: r.HTTP.WebSocket}
			if j > 0 {
				asked.HTTP.Path, asked.HTTP.RawQuery = p.Path, p.RawQuery
			}
			switch one := ref.request(&asked, d, matches, l7); {
			case worst == nil:
				worst = &one
			case one.Verdict < worst.Verdict:
				source := m.Source
				if source != "" && p.Source != "" {
					source += " and "
				}
				worst.Verdict, worst.Reason = one.Verdict, source+p.Source+": "+one.Reason
			}
		}
	}
	return *worst
}

// request decides one request of an allowed connection.
func (ref reference) request(r *Request, d Decision, matches []referenceMatch, l7 []*Endpoint) Decision {
	d.Layer, d.Verdict = L7, Deny
	path := r.HTTP.Path
	selected := refSelected(l7, path, r.Forward)
	d.AllowEncodedSlash = selected != nil && selected.AllowEncodedSlash
	d.Credentials = Credentials{}
	if selected != nil {
		d.Protocol, d.Credentials = selected.Protocol, selected.Credentials
		if !refSelects(selected.Path, r.HTTP.Path) {
			d.Credentials.Provider = ""
		}
	}
	query, err := refQuery(r.HTTP.RawQuery, slices.ContainsFunc(matches, func(m referenceMatch) bool {
		return slices.ContainsFunc(append(slices.Clone(m.ep.Rules), m.ep.DenyRules...), func(r Rule) bool { return r.Query != nil })
	}))
	switch {
	case selected == nil:
		d.Reason = "no L7 endpoint path matched request"
		return d
	case selected.Protocol == "websocket" && !r.HTTP.WebSocket:
		d.Reason = "websocket endpoint requires a valid WebSocket upgrade request"
		return d
	case strings.Contains(path, "%2F") && !selected.AllowEncodedSlash:
		d.Reason = "request-target contains an encoded '/' (%2F) which is not allowed on this endpoint"
		return d
	case refForeign(path) && slices.ContainsFunc(matches, func(m referenceMatch) bool {
		return m.ep.Path != "" || slices.ContainsFunc(append(slices.Clone(m.ep.Rules), m.ep.DenyRules...), func(r Rule) bool {
			return !slices.Contains([]string{"", "**", "/**"}, r.Path)
		})
	}):
		d.Reason = "path has escapes that are not UTF-8, and a rule reads the path"
		return d
	case err != nil:
		d.Reason = "query"
		return d
	}
	allowed, denied := false, false
	for _, m := range matches {
		rules := m.ep.Rules
		preset := map[Access][]string{AccessReadOnly: {"GET", "HEAD", "OPTIONS"}, AccessReadWrite: {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"}, AccessFull: {"*"}}
		if m.ep.Protocol == "websocket" {
			preset = map[Access][]string{AccessReadOnly: {"GET"}, AccessReadWrite: {"GET", "WEBSOCKET_TEXT"}, AccessFull: {"*"}}
		}
		for _, method := range preset[m.ep.Access] {
			rules = append(rules, Rule{Method: method, Path: "**"})
		}
		for _, rule := range rules {
			ok := rule.Method != "" && rule.Path != "" && refMethod(rule.Method, r.HTTP.Method) && refPath(rule.Path, path)
			ok = ok && (m.ep.Path == "" || refPath(m.ep.Path, path))
			for _, q := range rule.Query {
				values := query[q.Key]
				ok = ok && len(values) > 0 && !slices.Equal(q.Globs, []string{""})
				for _, v := range append(slices.Clone(values), refVariants(q.Key, r.HTTP.RawQuery)...) {
					ok = ok && refAny(q.Globs, refUnescape(v), false)
				}
			}
			allowed = allowed || ok
		}
		for _, rule := range m.ep.DenyRules {
			hit := (rule.Method == "" || refMethod(rule.Method, r.HTTP.Method)) && (rule.Path == "" || refDenies(rule.Path, path))
			hit = hit && (m.ep.Path == "" || refDenies(m.ep.Path, path))
			for _, q := range rule.Query {
				hit = hit && slices.ContainsFunc(refVariants(q.Key, r.HTTP.RawQuery), func(v string) bool {
					stages, deep := refStages(v)
					return deep || slices.ContainsFunc(stages, func(v string) bool { return refAny(q.Globs, v, true) })
				})
			}
			denied = denied || hit
		}
	}
	switch {
	case denied:
		d.Reason = r.HTTP.Method + " " + r.HTTP.Path + " blocked by deny rule"
	case !allowed:
		d.Reason = r.HTTP.Method + " " + r.HTTP.Path + " not permitted by policy"
	default:
		d.Verdict = Allow
		return ref.webSocket(r, d)
	}
	if ref.audits(selected) {
		d.Verdict = Audit
	}
	for _, p := range []string{path, refDecoded(path)} {
		for _, sibling := range []string{p, p + "/", strings.TrimSuffix(p, "/")} {
			strict := strings.HasSuffix(p, "/") && sibling == p+"/" // not a spelling of it
			if other := refSelected(l7, sibling, r.Forward); !strict && other != nil && !ref.audits(other) {
				d.Verdict = Deny
			}
		}
	}
	return ref.webSocket(r, d)
}

// webSocket denies a request that opens a WebSocket where WebSockets are not allowed.
func (ref reference) webSocket(r *Request, d Decision) Decision {
	if d.Verdict != Deny && r.HTTP.WebSocket && d.Protocol == "rest" && !d.Credentials.MessageRewrite {
		d.Verdict, d.Reason = Deny, NoWebSocket
	}
	return d
}

func (ref reference) audits(ep *Endpoint) bool {
	return ep.Enforcement == EnforcementAudit || ep.Enforcement == EnforcementUnset && ref.o.UnspecifiedEnforcement != EnforcementBlock
}

// refSelected returns the endpoint whose path selects the request.
func refSelected(l7 []*Endpoint, path string, forward bool) (selected *Endpoint) {
	rank := -1
	for _, ep := range l7 {
		if n := len(strings.ReplaceAll(refCanon(ep.Path, true), "*", "")); refSelects(ep.Path, path) && n >= rank {
			selected, rank = ep, n
		}
	}
	if selected == nil && len(l7) == 1 && !forward {
		selected = l7[0]
	}
	return selected
}

// middlewares returns the keys of the middlewares for a host.
func (ref reference) middlewares(host string) (keys []string) {
	all := slices.Clone(ref.p.Middlewares)
	slices.SortFunc(all, func(a, b Middleware) int { return int(a.Order) - int(b.Order) })
	for _, m := range all {
		matches := func(p string) bool {
			re, ok := refGlobs.Load("host" + p)
			if !ok {
				re, _ = refGlobs.LoadOrStore("host"+p, refHostPattern(p))
			}
			return re.(*regexp.Regexp).MatchString(host)
		}
		if slices.ContainsFunc(m.Include, matches) && !slices.ContainsFunc(m.Exclude, matches) {
			keys = append(keys, m.Key)
		}
	}
	return keys
}

// refHostPattern matches the host patterns of middlewares.
func refHostPattern(p string) *regexp.Regexp {
	var labels []string
	for _, l := range strings.Split(strings.ToLower(p), ".") {
		if l == "**" {
			labels = append(labels, `[^.]+(?:\.[^.]+)*`)
			continue
		}
		labels = append(labels, regexp.MustCompile(`\\\*|\\\?|\\\[(?:!|\\\^)?[^\\]*\\\]`).ReplaceAllStringFunc(regexp.QuoteMeta(l), func(m string) string {
			switch m {
			case `\*`:
				return `[^.]*`
			case `\?`:
				return `[^.]`
			}
			return strings.Replace(strings.ReplaceAll(m, `\`, ""), "[!", "[^", 1)
		}))
	}
	return regexp.MustCompile(`\A` + strings.Join(labels, `\.`) + `\z`)
}

func refHost(ep *Endpoint, host string) bool {
	switch {
	case host == "":
		return false
	case ep.Host == "":
		return len(ep.AllowedIPs) > 0
	case strings.Contains(ep.Host, "*"):
		return refGlob(ep.Host, '.', host)
	}
	return ep.Host == host
}

func (ref reference) binary(n *NetworkPolicy, r *Request) bool {
	if r.Binary == "" {
		return false
	}
	for _, b := range n.Binaries {
		for _, path := range append([]string{r.Binary}, r.Ancestors...) {
			switch {
			case path == "":
			case strings.Contains(b.Path, "*"):
				if refGlob(b.Path, '/', path) {
					return true
				}
			case b.Path == path, slices.Contains(ref.o.Aliases[b.Path], path):
				return true
			}
		}
	}
	return false
}

func refGlob(pattern string, sep byte, s string) bool {
	key := string(sep) + pattern
	re, ok := refGlobs.Load(key)
	if !ok {
		compiled, err := refGlobRegexp(pattern, sep)
		if err != nil {
			return false
		}
		re, _ = refGlobs.LoadOrStore(key, compiled)
	}
	return re.(*regexp.Regexp).MatchString(s)
}

var refGlobs sync.Map

// refGlobRegexp converts a pattern of CompileGlob to a regular expression.
func refGlobRegexp(p string, sep byte) (*regexp.Regexp, error) {
	p, wide := strings.CutPrefix(p, wideMark)
	q := regexp.QuoteMeta(string(sep))
	one := "[^" + q + "]"
	class := func(set string) string {
		narrow := refClass(set, func(b byte) bool { return b == sep })
		if !wide {
			return narrow
		}
		re := regexp.MustCompile(`\A` + narrow + `\z`)
		var all []string
		for b := range byte(0x80) {
			switch {
			case b == '/' && (set[0] == '!' || set[0] == '^'), re.MatchString(string(rune(b))):
				all = append(all, fmt.Sprintf("%%%02X", b))
				if b != '%' && b != '/' {
					all = append(all, fmt.Sprintf(`\x%02x`, b))
				}
			}
		}
		if set[0] == '!' || set[0] == '^' {
			all = append(all, "%[CD].%..", "%E.%..%..", "%F.%..%..%..")
		}
		return "(?:" + strings.Join(append(all, `[^\x{0}-\x{10ffff}]`), "|") + ")"
	}
	var out strings.Builder
	depth := 0
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '*':
			j := i
			for j < len(p) && p[j] == '*' {
				j++
			}
			whole := j-i == 2 && (i == 0 || p[i-1] == sep) && (j == len(p) || p[j] == sep)
			switch {
			case whole && i > 0 && j < len(p):
				out.WriteString("(?:.*" + q + ")?")
				j++
			case whole:
				out.WriteString(".*")
			default:
				out.WriteString(one + "*")
			}
			i = j - 1
		case c == '?':
			if wide {
				out.WriteString(class("!/"))
			} else {
				out.WriteString(one)
			}
		case c == '[':
			end := i + 1 + strings.IndexByte(p[i+1:], ']')
			out.WriteString(class(p[i+1 : end]))
			i = end
		case c == '{':
			depth++
			out.WriteString("(?:")
		case c == '}':
			depth--
			out.WriteString(")")
		case c == ',' && depth > 0:
			out.WriteString("|")
		case c == '\\':
			i++
			out.WriteString(regexp.QuoteMeta(p[i : i+1]))
		default:
			_, n := utf8.DecodeRuneInString(p[i:])
			out.WriteString(regexp.QuoteMeta(p[i : i+n]))
			i += n - 1
		}
	}
	return regexp.Compile(`\A(?s:` + out.String() + `)\z`)
}

// refClass lists the characters of a class.
func refClass(set string, never func(byte) bool) string {
	not := set[0] == '!' || set[0] == '^'
	if not {
		set = set[1:]
	}
	var in [0x80]bool
	for i := 0; i < len(set); i++ {
		hi := set[i]
		lo := hi
		if i+2 < len(set) && set[i+1] == '-' {
			hi = set[i+2]
			i += 2
		}
		for b := int(lo); b <= int(hi) && b < 0x80; b++ {
			in[b] = true
		}
	}
	out := "["
	if not {
		out = "[^"
	}
	for b := range byte(0x80) {
		if never(b) && not || in[b] && !(never(b) && !not) {
			out += fmt.Sprintf(`\x%02x`, b)
		}
	}
	if out == "[" {
		return `[^\x{0}-\x{10ffff}]`
	}
	return out + "]"
}

// refSelects matches endpoint paths.
func refSelects(p, path string) bool {
	p = refCanon(p, true)
	if p == "" || p == "**" || p == "/**" || p == path {
		return true
	}
	if dir, ok := strings.CutSuffix(p, "/**"); ok {
		dir = strings.ReplaceAll(dir, `\*`, "*")
		return path == dir || strings.HasPrefix(path, dir+"/")
	}
	re, ok := refGlobs.Load("selector" + p)
	if !ok {
		re, _ = refGlobs.LoadOrStore("selector"+p, refSelectorRegexp(p))
	}
	return re.(*regexp.Regexp) != nil && re.(*regexp.Regexp).MatchString(path)
}

func refSelectorRegexp(p string) *regexp.Regexp {
	var out strings.Builder
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*':
			stars := len(p[i:]) - len(strings.TrimLeft(p[i:], "*"))
			switch {
			case stars == 1:
				out.WriteString(".*")
			case stars == 2 && (i == 0 || p[i-1] == '/') && i+2 < len(p) && p[i+2] == '/':
				out.WriteString("(?:.*/)?")
				i += 2
			default:
				return nil
			}
		case '?':
			out.WriteByte('.')
		case '[':
			m := regexp.MustCompile(`^\[(!?(?s:.)[^\]]*)\]`).FindStringSubmatch(p[i:])
			if m == nil || m[1] == "!" {
				return nil
			}
			set := m[1]
			if set[0] == '^' { // no negation here
				set = set[1:] + "^"
			}
			out.WriteString(refClass(set, func(byte) bool { return false }))
			i += len(m[0]) - 1
		case '\\':
			i++
			fallthrough
		default:
			out.WriteString(regexp.QuoteMeta(p[i : i+1]))
		}
	}
	return regexp.MustCompile(`\A(?s:` + out.String() + `)\z`)
}
