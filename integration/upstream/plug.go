// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/libsandbox/netns"
)

// bridge connects the containers that are plugged in.
const bridge = "br0"

// sockets are opened in the host's namespace.
type sockets struct {
	http    map[int]net.Listener
	echo    net.Listener
	udp     net.PacketConn
	tcp     net.Listener
	sniffer int
}

// Within runs f on a thread in the host's namespace.
func (h *Host) Within(f func() error) error {
	return netns.Within(h.ns, f)
}

// plug creates the namespace and its link, and opens the sockets in it.
func (h *Host) plug() (s *sockets, err error) {
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open this network namespace: %w", err)
	}
	defer here.Close()
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	err = netns.Within(ns, func() error {
		inner := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: h.link, PeerNamespace: netlink.NsFd(here.Fd())}
		if err := netlink.LinkAdd(inner); err != nil {
			return errors.Join(fmt.Errorf("create veth %s: %w", h.link, err), ns.Close())
		}
		h.ns = ns // from now on the link is this host's, which Close removes
		// A bridge without a MAC address of its own takes the lowest one of its ports. That
		// changes when another container is plugged in, and neighbours would keep the old
		// one.
		mac := net.HardwareAddr{2, 0, 0, 232, h.net, 2}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, HardwareAddr: mac}}); err != nil {
			return fmt.Errorf("create bridge: %w", err)
		}
		err := errors.Join(
			up("lo"), up("eth0", fmt.Sprintf("10.231.%d.2/24", h.net), fmt.Sprintf("fd00:231:%x::2/64", h.net)),
			up(bridge, fmt.Sprintf("10.232.%d.2/24", h.net), fmt.Sprintf("fd00:232:%x::2/64", h.net)),
		)
		if err == nil {
			s, err = open()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, up(h.link, fmt.Sprintf("10.231.%d.1/24", h.net), fmt.Sprintf("fd00:231:%x::1/64", h.net))
}

func open() (*sockets, error) {
	s := &sockets{http: map[int]net.Listener{}}
	var err error
	listen := func(port int) net.Listener {
		l, e := net.Listen("tcp", fmt.Sprintf(":%d", port))
		err = errors.Join(err, e)
		return l
	}
	for _, port := range []int{80, 443} {
		s.http[port] = listen(port)
	}
	s.echo, s.tcp = listen(PortEcho), listen(53)
	u, e := net.ListenPacket("udp", ":53")
	s.udp = u
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("listen in upstream: %w", err)
	}
	s.sniffer, err = sniffer()
	return s, err
}

// Uplink creates a namespace for a container and plugs it in; see [Host.Plug]. It returns
// the namespace's path, which is valid while the host is open.
func (h *Host) Uplink(nth int) (path string, addr netip.Addr, err error) {
	ns, err := netns.New()
	if err != nil {
		return "", addr, fmt.Errorf("of the container: %w", err)
	}
	h.plugged = append(h.plugged, ns)
	path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	addr, err = h.Plug(path, nth)
	return path, addr, err
}

// Plug connects the namespace at path to the host. The namespace nth gets the addresses
// 10.232.NET.(10+nth) and fd00:232:NET::(10+nth), and the host as its default gateway.
func (h *Host) Plug(path string, nth int) (addr netip.Addr, err error) {
	addr = netip.AddrFrom4([4]byte{10, 232, h.net, byte(10 + nth)})
	name := fmt.Sprintf("up%d", nth)
	ns, err := os.Open(path)
	if err != nil {
		return addr, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	err = netns.Within(ns, func() error {
		inner := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: name, PeerNamespace: netlink.NsFd(h.ns.Fd())}
		if err := netlink.LinkAdd(inner); err != nil {
			return fmt.Errorf("create uplink: %w", err)
		}
		if err := errors.Join(up("lo"), up("eth0", addr.String()+"/24", fmt.Sprintf("fd00:232:%x::%x/64", h.net, 10+nth))); err != nil {
			return err
		}
		for _, gateway := range []string{fmt.Sprintf("10.232.%d.2", h.net), fmt.Sprintf("fd00:232:%x::2", h.net)} {
			if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}); err != nil {
				return fmt.Errorf("add default route by %s: %w", gateway, err)
			}
		}
		return nil
	})
	if err != nil {
		return addr, err
	}
	return addr, h.Within(func() error {
		port, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		b, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(port, b), netlink.LinkSetUp(port))
	})
}

// LinkLocal returns the host's IPv6 address on the link of the containers.
func (h *Host) LinkLocal() (addr netip.Addr, err error) {
	err = h.Within(func() error {
		b, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(b, netlink.FAMILY_V6)
		for _, a := range list {
			if a.IP.IsLinkLocalUnicast() {
				addr, _ = netip.AddrFromSlice(a.IP)
			}
		}
		return err
	})
	return addr, err
}

// Inside returns the host's address for containers that are plugged in.
func (h *Host) Inside() netip.Addr { return netip.AddrFrom4([4]byte{10, 232, h.net, 2}) }

// Inside6 returns Inside's IPv6 counterpart.
func (h *Host) Inside6() netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:232:%x::2", h.net))
}

func up(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	for _, address := range addresses {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
		a.Flags = unix.IFA_F_NODAD // usable at once
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add address %s to %s: %w", address, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
