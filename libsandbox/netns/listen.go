// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"openshell.dev/runtime/internal/proxyapi"
)

// Listen opens the proxy's sockets in the namespace ns, in the order of
// [proxyapi.Listeners]. The sockets of a family that the namespace lacks are nil.
func Listen(ns *os.File) (files [proxyapi.Listeners]*os.File, err error) {
	err = Within(ns, func() error {
		for i, at := range [proxyapi.Listeners]struct{ network, host string }{
			proxyapi.ProxyTCP4: {"tcp4", "127.0.0.1"}, proxyapi.ProxyTCP6: {"tcp6", "::1"},
			proxyapi.DNSUDP4: {"udp4", "127.0.0.1"}, proxyapi.DNSUDP6: {"udp6", "::1"},
			proxyapi.DNSTCP4: {"tcp4", "127.0.0.1"}, proxyapi.DNSTCP6: {"tcp6", "::1"},
		} {
			port := proxyapi.PortDNS
			if i == proxyapi.ProxyTCP4 || i == proxyapi.ProxyTCP6 {
				port = proxyapi.PortProxy
			}
			f, err := listen(at.network, net.JoinHostPort(at.host, strconv.Itoa(port)))
			if err != nil && at.host == "::1" && !hasIPv6() {
				continue
			}
			if err != nil {
				return fmt.Errorf("open the proxy's listener in the container's network namespace: %w", err)
			}
			files[i] = f
		}
		return nil
	})
	if err != nil {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
	}
	return files, err
}

func listen(network, addr string) (*os.File, error) {
	if network[:3] == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.(*net.UDPConn).File()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// hasIPv6 reports whether lo has IPv6 in the namespace of the calling thread.
func hasIPv6() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	return err == nil && len(b) > 0 && b[0] == '0'
}
