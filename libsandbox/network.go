// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/trust"
	"openshell.dev/runtime/libsandbox/netns"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/libsandbox/proxyproc"
)

// network is a container's only way out: a captured network namespace, and the proxy that
// its connections lead to.
type network struct {
	// config is the proxy's first document.
	config *proxyapi.Config
	// hostname is the host name of the container.
	hostname string
	// namespace is nil until it exists: see makerContainer.
	namespace *os.File
	// captured is closed when the namespace is captured and the proxy is started, or when
	// that has failed. Then err is set.
	captured chan struct{}
	err      error
	proxy    *proxyproc.Proxy
	// serving says that the proxy serves the container.
	serving bool
	// fixed says that no interface can be added before the container starts: the
	// namespace is known to the runtime alone, no hook runs, and no device is moved.
	fixed bool
}

// maker says who makes the network namespace of a container.
type maker int

const (
	// makerEngine has made it already: config.json names it by a path.
	makerEngine maker = iota
	// makerRuntime makes it before the container, so that it can be captured meanwhile.
	makerRuntime
	// makerContainer is the container's init process, in its own user namespace. The
	// runtime cannot make it there.
	makerContainer
)

// netnsOf returns the index of the network namespace in the namespaces of config.json, and
// who makes it. It returns an error if there is none.
func netnsOf(namespaces []specs.LinuxNamespace) (index int, by maker, err error) {
	find := func(t specs.LinuxNamespaceType) int {
		return slices.IndexFunc(namespaces, func(s specs.LinuxNamespace) bool { return s.Type == t })
	}
	index = find(specs.NetworkNamespace)
	switch {
	case index < 0:
		// The operator's allow can accept the host's namespace, but the runtime has nothing
		// to capture it with.
		return index, by, &plan.Refusal{Field: plan.FieldNetwork, Reason: "a sandbox without a network namespace of its own cannot be enforced"}
	case namespaces[index].Path != "":
		return index, makerEngine, nil
	case find(specs.UserNamespace) >= 0:
		return index, makerContainer, nil
	}
	return index, makerRuntime, nil
}

// newNetwork opens or makes the container's network namespace and begins to capture it in
// the background, while the container is made. A namespace that it makes is named in spec
// by its path. A namespace that only the container's process can make is captured in
// waitCaptured. The caller calls release.
func newNetwork(c *proxyapi.Config, spec *specs.Spec) (*network, error) {
	n := &network{config: c, hostname: spec.Hostname, captured: make(chan struct{})}
	l := *spec.Linux
	l.Namespaces = slices.Clone(l.Namespaces)
	spec.Linux = &l
	i, by, err := netnsOf(l.Namespaces)
	if err != nil {
		return nil, err
	}
	switch by {
	case makerContainer:
		return n, nil
	case makerEngine:
		n.namespace, err = openForeign(l.Namespaces[i].Path)
	case makerRuntime:
		if n.namespace, err = netns.New(); err == nil {
			n.fixed = spec.Hooks == nil && len(l.NetDevices) == 0
			l.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.namespace.Fd())
		}
	}
	if errors.Is(err, netns.ErrHost) {
		return nil, &plan.Refusal{Field: plan.FieldNetwork, Reason: "the host's network namespace would be shared"}
	}
	if err != nil {
		return nil, fmt.Errorf("config.json: linux.namespaces.network: %w", err)
	}
	go n.capture()
	return n, nil
}

// openForeign opens the network namespace at path. The error wraps netns.ErrHost if it is
// the runtime's own.
func openForeign(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := netns.Foreign(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// capture captures the namespace and starts the proxy. Its result is n.err, once
// n.captured is closed.
func (n *network) capture() {
	defer close(n.captured)
	if err := netns.Capture(n.namespace); err != nil {
		n.err = fmt.Errorf("config.json: linux.namespaces.network: %w", err)
		return
	}
	listeners, err := netns.Listen(n.namespace)
	if errors.Is(err, unix.EADDRINUSE) {
		n.err = errors.New("config.json: linux.namespaces.network: the network namespace belongs to another sandbox, and two sandboxes cannot share one yet")
		return
	}
	if err != nil {
		n.err = err
		return
	}
	defer func() {
		for _, l := range listeners {
			if l != nil {
				_ = l.Close()
			}
		}
	}()
	n.proxy, n.err = proxyproc.Start(n.config, n.namespace, listeners)
}

// waitCaptured returns when the network namespace of the container's process pid is
// captured. It is called before any program of the image runs.
func (n *network) waitCaptured(pid int) error {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	if n.namespace == nil {
		n.namespace = theirs
		n.capture()
		return n.err
	}
	defer theirs.Close()
	<-n.captured
	if n.err != nil {
		return n.err
	}
	a, err := n.namespace.Stat()
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

// serve tells the proxy which container it serves, and returns when it does. pid is the
// container's init process, whose root is set up: what the proxy learns of the container
// is the engine's work, because no program of the image has run.
func (n *network) serve(pid int) error {
	root, err := openRoot(pid)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	c := &proxyapi.Container{Pid: pid}
	if err := n.readNames(c, root); err != nil {
		return err
	}
	if err := trust.FindLayers(&n.config.Trust); err != nil {
		return err
	}
	c.Trust = n.config.Trust
	if !n.fixed {
		if err := netns.Refresh(n.namespace); err != nil {
			return err
		}
	}
	if err := n.proxy.Serve(c); err != nil {
		return err
	}
	n.serving = true
	return nil
}

// readNames reads the names and the resolvers of the container whose root is open at root
// into c.
func (n *network) readNames(c *proxyapi.Container, root int) error {
	hosts, err := readIn(root, "/etc/hosts", maxHosts)
	if err != nil {
		return err
	}
	c.Hosts, c.Own = parseHosts(hosts), ownNames(hosts, n.hostname)
	c.Resolvers, err = n.resolvers(root)
	return err
}

// hostResolvConf is the host's resolv.conf(5).
const hostResolvConf = "/etc/resolv.conf"

// resolvers returns the name servers that the proxy asks: the host's, if the proxy's
// connections start there, else the container's.
func (n *network) resolvers(root int) ([]netip.AddrPort, error) {
	if n.config.Egress == proxyapi.EgressHost {
		host, err := os.ReadFile(hostResolvConf)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return parseResolvers(host), nil
	}
	text, err := readIn(root, "/etc/resolv.conf", maxHosts)
	if err != nil {
		return nil, err
	}
	own := parseResolvers(text)
	if !slices.ContainsFunc(own, isDockerResolver) {
		return own, nil
	}
	host, err := os.ReadFile(hostResolvConf)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	return withHostResolvers(own, parseResolvers(host)), nil
}

// withHostResolvers adds the host's name servers to those of a container that has Docker's
// own resolver. That one knows the names of containers. For other names it asks the host's
// name servers, but from inside the container, where its questions lead to the proxy again.
func withHostResolvers(own, host []netip.AddrPort) []netip.AddrPort {
	out := slices.Clone(own)
	for _, a := range host {
		if !a.Addr().IsLoopback() {
			out = append(out, a)
		}
	}
	return out
}

// dockerResolver is the address of Docker's own resolver, on user-defined networks.
var dockerResolver = netip.AddrFrom4([4]byte{127, 0, 0, 11})

func isDockerResolver(a netip.AddrPort) bool { return a.Addr() == dockerResolver }

// release ends a proxy that serves no container, and closes the namespace.
func (n *network) release() {
	if n.namespace == nil {
		return
	}
	<-n.captured
	if n.proxy != nil && !n.serving {
		n.proxy.Abort()
	}
	_ = n.namespace.Close()
}
