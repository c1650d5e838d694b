// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// contender is an endpoint with the data that ambiguities compares.
type contender struct {
	*Endpoint
	policy string
	index  int
	node   *yaml.Node
	// ports are the endpoint's ports, sorted and without duplicates.
	ports []uint16
	// pattern is true if the host may match a name that another host matches.
	pattern bool
	// tail is the end of the host without pattern characters.
	tail string
	// connection is equal for endpoints with equal settings for connections, and request
	// for those with equal settings for requests. request is 0 for an endpoint without such
	// settings.
	connection, request int
	// path is the endpoint's path in the spelling of canonicalPattern.
	path string
	rank int
}

// rivals are the indexes of two conflicting contenders.
type rivals struct{ left, right int }

// ambiguities refuses endpoints that can match the same connection or request and have
// different settings for it: otherwise their order would decide.
func (r *reader) ambiguities(entries []entry) {
	all := contenders(entries)
	found, work := contradictions(all)
	if work < 0 {
		r.fail(all[0].node, "network_policies have too many endpoints with overlapping hosts that differ in tls, allowed_ips, protocol or enforcement: whether they contradict each other cannot be checked in reasonable time", "")
		return
	}
	slices.SortFunc(found, func(a, b rivals) int {
		return cmp.Or(cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	for _, f := range found {
		r.ambiguous(&all[f.left], &all[f.right])
	}
}

// contradictions returns the pairs of conflicting endpoints, at most MaxProblems+1 of them,
// and what is left of MaxOverlapWork. Each compared pair costs at least one step. A
// negative rest means that the search ended early.
func contradictions(all []contender) (found []rivals, work int) {
	literal := map[string][]int{}
	for i, c := range all {
		if !c.pattern {
			literal[c.Host] = append(literal[c.Host], i)
		}
	}
	work = MaxOverlapWork
	// compare returns false when the search must end.
	compare := func(i, j int) bool {
		if work--; work >= 0 && conflicting(&all[i], &all[j], &work) {
			found = append(found, rivals{min(i, j), max(i, j)})
		}
		return work >= 0 && len(found) <= MaxProblems
	}
	for i := range all {
		if all[i].pattern {
			for j := range all {
				// Pairs with earlier patterns were compared in their turn.
				if (j > i || !all[j].pattern) && !compare(i, j) {
					return found, work
				}
			}
			continue
		}
		group := literal[all[i].Host]
		if len(group) == 0 || sameKind(all, group) {
			delete(literal, all[i].Host) // the remaining endpoints of the group have equal settings
			continue
		}
		literal[all[i].Host] = group[1:]
		for _, j := range group[1:] {
			if !compare(i, j) {
				return found, work
			}
		}
	}
	return found, work
}

func contenders(entries []entry) (all []contender) {
	kinds := map[string]int{}
	kind := func(s []said) int {
		text := fmt.Sprint(s)
		if _, ok := kinds[text]; !ok {
			kinds[text] = len(kinds) + 1
		}
		return kinds[text]
	}
	for _, e := range entries {
		for i := range e.Endpoints {
			ep := &e.Endpoints[i]
			c := contender{Endpoint: ep, policy: e.Name, index: i, node: e.nodes[i], path: canonicalPattern(ep.Path, selectorDialect)}
			c.rank = rank(c.path)
			c.ports = slices.Clone(ep.Ports)
			slices.Sort(c.ports)
			c.ports = slices.Compact(c.ports)
			c.pattern = ep.Host == "" || strings.Contains(ep.Host, "*")
			c.tail = ep.Host[strings.LastIndexAny(ep.Host, "*?]}\\")+1:]
			c.connection = kind(connectionSays(ep))
			if ep.configures() {
				c.request = kind(requestSays(ep))
			}
			all = append(all, c)
		}
	}
	return all
}

func sameKind(all []contender, group []int) bool {
	first := &all[group[0]]
	return !slices.ContainsFunc(group, func(i int) bool {
		return all[i].connection != first.connection || all[i].request != first.request
	})
}

// said is one setting of an endpoint, in OpenShell's notation.
type said struct {
	field, value string
	// list has the elements of a field that is a list, sorted and quoted.
	list []string
}

// conflict returns the name of the field and how the two values differ. For lists it names
// the elements that only one of them has.
func (s *said) conflict(o *said) string {
	a, b := s.value, o.value
	if s.list != nil || o.list != nil {
		a, b = listed(s.without(o)), listed(o.without(s))
	}
	return s.field + "=" + a + " vs " + b
}

// without returns the elements of the list that o does not have.
func (s *said) without(o *said) []string {
	return slices.DeleteFunc(slices.Clone(s.list), func(e string) bool { return slices.Contains(o.list, e) })
}

func listed(elements []string) string { return "[" + strings.Join(elements, ", ") + "]" }

func connectionSays(e *Endpoint) []said {
	tls := "auto"
	if e.TLSSkip {
		tls = "skip"
	}
	var ips []string
	for _, ip := range e.AllowedIPs {
		ips = append(ips, fmt.Sprintf("%q", asciiLower(strings.TrimSpace(ip))))
	}
	slices.Sort(ips)
	ips = slices.Compact(ips)
	return []said{
		{field: "transparent_tcp_eligible", value: fmt.Sprint(e.Protocol == ProtocolTCP)},
		{field: "tls", value: fmt.Sprintf("%q", tls)},
		{"allowed_ips", listed(ips), ips},
	}
}

func requestSays(e *Endpoint) []said {
	protocol, enforcement := e.Protocol, e.Enforcement
	if protocol == ProtocolTCP {
		protocol = ProtocolNone
	}
	if enforcement == EnforcementUnset {
		enforcement = EnforcementAudit
	}
	return append([]said{
		{field: "protocol", value: fmt.Sprintf("%q", protocol)},
		{field: "enforcement", value: fmt.Sprintf("%q", enforcement)},
		{field: "allow_encoded_slash", value: fmt.Sprint(e.AllowEncodedSlash)},
	}, e.Credentials.says()...)
}

// conflicting reports whether a and b can match the same traffic and have different
// settings.
func conflicting(a, b *contender, work *int) bool {
	connection := a.connection != b.connection
	requests := a.request != b.request && a.request != 0 && b.request != 0 && a.rank == b.rank
	switch {
	case !connection && !requests,
		!strings.HasSuffix(a.tail, b.tail) && !strings.HasSuffix(b.tail, a.tail),
		!a.sharesPort(b, work),
		!hostsMeet(a.Host, b.Host, work):
		return false
	}
	return connection || pathsMeet(a.path, b.path, work)
}

func hostsMeet(a, b string, work *int) bool {
	return a == b || a == "" || b == "" || overlap(tokens(a, '.', ruleDialect), tokens(b, '.', ruleDialect), work)
}

func pathsMeet(a, b string, work *int) bool {
	return a == b || a == "" || b == "" || overlap(tokens(a, '/', selectorDialect), tokens(b, '/', selectorDialect), work)
}

func (c *contender) sharesPort(o *contender, work *int) bool {
	*work -= len(c.ports)
	return slices.ContainsFunc(c.ports, func(p uint16) bool {
		_, ok := slices.BinarySearch(o.ports, p)
		return ok
	})
}

// rank orders the endpoint paths that match a request: the one with the most characters
// other than * is selected. path is in the spelling of canonicalPattern.
func rank(path string) int { return len(path) - strings.Count(path, "*") }

// ambiguous reports two conflicting endpoints.
func (r *reader) ambiguous(a, b *contender) {
	var common, conflicts []string
	for _, p := range a.ports {
		if slices.Contains(b.ports, p) {
			common = append(common, fmt.Sprint(p))
		}
	}
	differ := func(a, b []said) {
		for i := range a {
			if a[i].value != b[i].value {
				conflicts = append(conflicts, a[i].conflict(&b[i]))
			}
		}
	}
	differ(connectionSays(a.Endpoint), connectionSays(b.Endpoint))
	work := MaxOverlapWork
	if a.request != 0 && b.request != 0 && a.rank == b.rank && pathsMeet(a.path, b.path, &work) {
		differ(requestSays(a.Endpoint), requestSays(b.Endpoint))
	}
	r.fail(b.node, fmt.Sprintf("network policies %s and %s overlap on port(s) %s with conflicting metadata: %s",
		a, b, strings.Join(common, ","), strings.Join(conflicts, "; ")), fmt.Sprintf("the other is in line %d", a.Line))
}

func (c *contender) String() string {
	host, ports := c.Host, strings.Trim(strings.ReplaceAll(fmt.Sprint(c.ports), " ", ","), "[]")
	if host == "" {
		host = "<any-host>"
	}
	return fmt.Sprintf("'%s' endpoint[%d] (%s:%s%s)", c.policy, c.index, host, ports, c.Path)
}
