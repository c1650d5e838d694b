// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/trust"
	"openshell.dev/runtime/libsandbox/netns"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/proxyproc"
	"openshell.dev/runtime/policy"
)

// Limits of what is read of a container's files, in bytes.
const (
	maxHosts  = 1 << 20
	maxBundle = 16 << 20
)

// dockerResolver is Docker's own on user-defined networks. It knows the names of
// containers; for others it asks the host's resolvers, but from inside the
// container, where it is led to the policy DNS as everybody. So the proxy asks
// them itself.
var dockerResolver = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// network is a container's way out: its namespace, captured, and its proxy.
type network struct {
	config *proxyapi.Config
	// hostname is the container's.
	hostname string
	// ns is the namespace; nil until the container's process has made its own.
	ns *os.File
	// opened is closed once ns is captured and the proxy started, or err set.
	opened   chan struct{}
	err      error
	proxy    *proxyproc.Proxy
	attached bool
	// plain says that nobody can have plugged an interface in before the container's
	// start: the namespace is the runtime's, and neither a hook runs nor a device is moved.
	plain bool
}

// newNetwork begins to open the container's network while the container is made.
// A namespace that the runtime would make is made now, and named in spec by path.
// In a user namespace it must be the container's process that makes it; all is
// then done in enclose.
func newNetwork(c *proxyapi.Config, spec *specs.Spec) (*network, error) {
	n := &network{config: c, hostname: spec.Hostname, opened: make(chan struct{})}
	l := *spec.Linux
	l.Namespaces = slices.Clone(l.Namespaces)
	spec.Linux = &l
	i := slices.IndexFunc(l.Namespaces, func(s specs.LinuxNamespace) bool { return s.Type == specs.NetworkNamespace })
	inUser := slices.ContainsFunc(l.Namespaces, func(s specs.LinuxNamespace) bool { return s.Type == specs.UserNamespace })
	var err error
	switch {
	case i < 0:
		// The operator allows the host's namespace by name; there is nothing to
		// capture it with.
		return nil, &plan.Refusal{Field: plan.FieldNetwork, Reason: "a sandbox without a network namespace of its own cannot be enforced"}
	case l.Namespaces[i].Path != "":
		if n.ns, err = os.Open(l.Namespaces[i].Path); err == nil {
			err = netns.Foreign(n.ns)
		}
		if errors.Is(err, netns.ErrHost) {
			return nil, errors.Join(&plan.Refusal{Field: plan.FieldNetwork, Reason: "the host's network namespace would be shared"}, n.ns.Close())
		}
	case inUser:
		return n, nil
	default:
		if n.ns, err = netns.New(); err == nil {
			n.plain = spec.Hooks == nil && len(l.NetDevices) == 0
			l.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("config.json: linux.namespaces.network: %w", err)
	}
	go n.open()
	return n, nil
}

// open captures the namespace and starts the proxy.
func (n *network) open() {
	defer close(n.opened)
	n.err = func() error {
		if err := netns.Capture(n.ns); err != nil {
			return fmt.Errorf("config.json: linux.namespaces.network: %w", err)
		}
		listeners, err := netns.Listen(n.ns)
		if errors.Is(err, unix.EADDRINUSE) {
			return errors.New("config.json: linux.namespaces.network: its network namespace is another sandbox's: two cannot share one yet")
		}
		if err != nil {
			return err
		}
		defer func() {
			for _, l := range listeners {
				if l != nil {
					_ = l.Close()
				}
			}
		}()
		n.proxy, err = proxyproc.Start(n.config, n.ns, listeners)
		return err
	}()
}

// enclose is the createRuntime step: it returns once the namespace of the
// container's process pid is captured, before anything of the image runs.
func (n *network) enclose(pid int) error {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	if n.ns == nil {
		n.ns = theirs
		n.open()
		return n.err
	}
	defer theirs.Close()
	<-n.opened
	if n.err != nil {
		return n.err
	}
	a, err := n.ns.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	b, err := theirs.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if !os.SameFile(a, b) {
		return errors.New("the container is not in the network namespace that was captured for it")
	}
	return nil
}

// attach returns once the proxy serves the container whose first process is pid
// and whose root is set up: what it learns of the container is the engine's, not
// yet the workload's.
func (n *network) attach(pid int) error {
	c := &proxyapi.Container{Pid: pid}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	hosts, err := readIn(root, "/etc/hosts", maxHosts)
	if err != nil {
		return err
	}
	if err := trust.FindLayers(&n.config.Trust); err != nil {
		return err
	}
	c.Trust = n.config.Trust
	c.Hosts, c.Own = parseHosts(hosts), ownNames(hosts, n.hostname)
	resolv, err := readIn(root, "/etc/resolv.conf", maxHosts)
	if n.config.Egress == proxyapi.EgressHost {
		resolv, err = os.ReadFile("/etc/resolv.conf")
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.Resolvers = parseResolvers(resolv)
	if n.config.Egress != proxyapi.EgressHost && slices.ContainsFunc(c.Resolvers, func(a netip.AddrPort) bool { return a.Addr() == dockerResolver }) {
		host, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return fmt.Errorf("read the host's resolvers: %w", err)
		}
		for _, a := range parseResolvers(host) {
			if !a.Addr().IsLoopback() {
				c.Resolvers = append(c.Resolvers, a)
			}
		}
	}
	if !n.plain {
		if err := netns.Refresh(n.ns); err != nil {
			return err
		}
	}
	if err := n.proxy.Attach(c); err != nil {
		return err
	}
	n.attached = true
	return nil
}

// release ends a proxy that has got no container, and lets the namespace go.
func (n *network) release() {
	if n.ns == nil {
		return
	}
	<-n.opened
	if n.proxy != nil && !n.attached {
		n.proxy.Abort()
	}
	_ = n.ns.Close()
}

// proxyConfig is what the proxy begins with.
func (o *CreateOptions) proxyConfig(dir string, c *operator.Config, src *operator.Source) (*proxyapi.Config, error) {
	h := &proxyapi.Config{
		ID: o.Container.ID, PolicyName: src.Name, PolicyText: src.Text, StateDir: dir,
		LogDir: filepath.Join(c.LogDir, o.Container.ID), Egress: o.Egress,
		Enforce:           c.UnspecifiedEnforcement == policy.EnforcementBlock,
		ControlPlanePorts: c.ControlPlanePorts,
		AnyPlace:          c.CredentialPlacement == operator.PlacementAny,
		TerminatePlainTLS: c.PlainEndpointTLS == operator.PlainTerminate,
		FailClosed:        c.PolicyValidationFailureMode == operator.FailClosed,
	}
	if h.Egress == proxyapi.EgressNone {
		h.Egress = proxyapi.EgressNamespace
	}
	for _, file := range slices.Concat(c.Upstream.CAFiles, o.UpstreamCAs) {
		pem, err := boundedfile.Read(file, maxBundle)
		if err != nil {
			return nil, fmt.Errorf("read upstream CA: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream CA %s: no certificate (PEM) in it", file)
		}
		h.UpstreamRoots = append(append(h.UpstreamRoots, pem...), '\n')
	}
	return h, nil
}

// readIn reads a file below root, where every link stays below root too; nothing
// if there is none.
func readIn(root int, file string, most int64) ([]byte, error) {
	data, err := readRegular(root, file, unix.RESOLVE_IN_ROOT, most)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s in the container: %w", file, err)
	}
	return data, nil
}

// readSeen reads a file as the container will see it: below root, or of the mount of
// config.json at that place.
func readSeen(spec *specs.Spec, root int, file string, most int64) ([]byte, error) {
	data, err := readIn(root, file, most)
	if err != nil {
		return nil, err
	}
	top := fmt.Sprintf("/proc/self/fd/%d", root)
	real := leadsTo(top, file)
	for _, m := range spec.Mounts {
		if filepath.IsAbs(m.Source) && leadsTo(top, m.Destination) == real {
			if data, err = readRegular(unix.AT_FDCWD, m.Source, 0, most); err != nil {
				return nil, fmt.Errorf("config.json: mounts: read %s for %s: %w", m.Source, file, err)
			}
		}
	}
	return data, nil
}

// readRegular reads the file of at most so many bytes that name leads to from dir; nothing
// if it is not a regular file. resolve has the flags of openat2(2).
func readRegular(dir int, name string, resolve uint64, most int64) ([]byte, error) {
	f, err := boundedfile.OpenRegular(dir, name, resolve)
	if errors.Is(err, boundedfile.ErrNotRegular) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("larger than %d bytes", most)
	}
	return data, err
}

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

// parseHosts reads hosts(5). Names of the loopback are left out: they never leave
// the container.
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

// ownNames reads the names of the container itself, and their addresses, from hosts(5):
// those of the loopback and those beside the host name. A host name that the file does not
// have is the loopback's.
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

// maxNoProxy bounds the names and addresses of the container's own in NO_PROXY, beside the
// usual ones: a hosts file can name thousands that the proxy still knows for its own.
const maxNoProxy = 64

// noProxy lists the container's own names and addresses, which its programs reach without
// the proxy.
func noProxy(spec *specs.Spec) ([]string, error) {
	root, err := unix.Open(spec.Root.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root.path %s: %w", spec.Root.Path, err)
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

// maxResolvers is how many name servers the C library takes, too.
const maxResolvers = 3

// parseResolvers reads the name servers of resolv.conf(5).
func parseResolvers(text []byte) (out []netip.AddrPort) {
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(out) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}
