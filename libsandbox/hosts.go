// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// maxHosts bounds hosts(5) and resolv.conf(5) of a container, in bytes.
const maxHosts = 1 << 20

// hostLines yields the address and the names of each line of hosts(5).
func hostLines(text []byte) iter.Seq2[netip.Addr, []string] {
	return func(yield func(netip.Addr, []string) bool) {
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			a, err := netip.ParseAddr(fields[0])
			if err != nil || a.Zone() != "" {
				continue
			}
			var names []string
			for _, name := range fields[1:] {
				if name, err := policy.NormalizeHost(name); err == nil {
					names = append(names, name)
				}
			}
			if !yield(a.Unmap(), names) {
				return
			}
		}
	}
}

// parseHosts returns the names of hosts(5) and their addresses. It leaves out names of the
// loopback, because connections to these never leave the container.
func parseHosts(text []byte) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for a, names := range hostLines(text) {
		if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() {
			continue
		}
		for _, name := range names {
			out[name] = append(out[name], a)
		}
	}
	return out
}

// ownNames returns the names in hosts(5) that mean the container itself, and their
// addresses: names of the loopback, and names on a line with the host name. A host name
// that the file does not have gets the addresses of the loopback.
func ownNames(text []byte, hostname string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	hostname, err := policy.NormalizeHost(hostname)
	for a, names := range hostLines(text) {
		if a.IsLoopback() || a.IsUnspecified() || err == nil && slices.Contains(names, hostname) {
			for _, name := range names {
				out[name] = append(out[name], a)
			}
		}
	}
	if err == nil && out[hostname] == nil {
		out[hostname] = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return out
}

// maxNoProxy bounds the container's own names and addresses in NO_PROXY. A hosts file can
// have thousands; the proxy recognizes the others as the container's own.
const maxNoProxy = 64

// noProxy returns the container's own names and addresses, which its programs reach without
// the proxy.
func noProxy(spec *specs.Spec) ([]string, error) {
	root, err := openRootfs(spec.Root.Path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	text, err := readSeen(spec, root, "/etc/hosts", maxHosts)
	if err != nil {
		return nil, err
	}
	own := ownNames(text, spec.Hostname)
	var names, addrs []string
	for name, list := range own {
		names = append(names, name)
		for _, a := range list {
			if !a.IsLoopback() && !a.IsUnspecified() {
				addrs = append(addrs, a.String())
			}
		}
	}
	slices.Sort(names)
	slices.Sort(addrs)
	out := slices.Concat(slices.Compact(addrs), names)
	if i := slices.Index(out, spec.Hostname); i > 0 {
		out = append([]string{spec.Hostname}, slices.Delete(out, i, i+1)...)
	}
	return out[:min(len(out), maxNoProxy)], nil
}

// maxResolvers bounds the name servers of a resolv.conf(5). The C library reads as many.
const maxResolvers = 3

// parseResolvers returns the first maxResolvers name servers of resolv.conf(5).
func parseResolvers(text []byte) (out []netip.AddrPort) {
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(out) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, proxyapi.PortDomain))
		}
	}
	return out
}
