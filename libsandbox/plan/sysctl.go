// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// networkSysctls matches the sysctls below net that a container may set. All others are
// refused. Routes, marks, source checks and connection tracking keep packets inside
// (docs/design/0001-network.md), and the sysctls route_localnet, accept_local, rp_filter,
// src_valid_mark, fwmark_reflect, tcp_fwmark_accept, ip_nonlocal_bind, forwarding,
// accept_ra and nf_conntrack_* change one of these.
var networkSysctls = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^net\.(` + strings.Join([]string{
		`core\.(somaxconn|optmem_max|txrehash|[rw]mem_(default|max))`,
		`unix\.max_dgram_qlen`,
		`ipv4\.(ping_group_range|ip_unprivileged_port_start|ip_local_port_range|ip_local_reserved_ports|ip_default_ttl|udp_[rw]mem_min)`,
		`ipv4\.tcp_[a-z0-9_]+`,
		`ipv6\.conf\.[a-zA-Z0-9_/-]+\.disable_ipv6`,
	}, "|") + `)$`)
})

// refusedTCP are sysctls that are refused although networkSysctls matches them.
var refusedTCP = []string{"net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_l3mdev_accept"}

// refusedSysctls returns the refusals of sysctls of the network. libcontainer checks
// sysctls of other kinds.
func refusedSysctls(spec *specs.Spec) (refusals []Refusal) {
	for _, written := range slices.Sorted(maps.Keys(spec.Linux.Sysctl)) {
		name := dotted(written)
		// The case of the first element is folded so that no spelling of net is another kind.
		first, _, _ := strings.Cut(name, ".")
		if !strings.EqualFold(first, "net") && !strings.HasPrefix(strings.ToLower(name), "net/") {
			continue
		}
		if slices.Contains(refusedTCP, name) || !networkSysctls().MatchString(name) {
			refusals = append(refusals, Refusal{"linux.sysctl", fmt.Sprintf("%s changes how the sandbox's network is kept apart", written)})
		}
	}
	return refusals
}

// dotted returns a sysctl's name with dots as separators, as sysctl(8) and libcontainer
// read it: if the first separator is a slash, all slashes are separators, and a dot is part
// of an interface's name.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
