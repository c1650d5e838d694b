// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"openshell.dev/runtime/policy"
)

// target is a host as policy knows it, and a port.
type target struct {
	host string
	port uint16
	tls  bool
	// own is true if host is the container itself. Only a client that uses the proxy
	// variables asks for it.
	own bool
}

func (t target) String() string {
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// protocol returns the name that records give to HTTP/1 with the target.
func (t target) protocol() string {
	if t.tls {
		return "https"
	}
	return "http"
}

// inTunnel is the path and query of a request on a connection to one target.
func inTunnel(uri string, to target) (string, error) {
	if strings.HasPrefix(uri, "/") {
		return uri, nil
	}
	scheme, after, ok := strings.Cut(uri, "://")
	authority, rest := cutAuthority(after)
	if !ok || !to.is(authority) || strings.EqualFold(scheme, "https") != to.tls {
		return "", fmt.Errorf("request target %.80q is not on %s", uri, to)
	}
	return rest, nil
}

// cutAuthority parts what follows :// in a URL.
func cutAuthority(s string) (authority, rest string) {
	end := strings.IndexAny(s, "/?")
	if end < 0 {
		return s, "/"
	}
	if s[end] == '?' {
		return s[:end], "/" + s[end:]
	}
	return s[:end], s[end:]
}

// is says whether an authority in a request names the target.
func (t target) is(authority string) bool {
	if authority == t.header() {
		return true // as nearly all are
	}
	host, port, err := splitHost(authority, t.standardPort())
	return err == nil && host == t.host && port == t.port
}

// named reports whether a request over HTTP/1 is for the target. A request of HTTP/1.0
// without Host is, too: it is forwarded with the name of the target.
func (t target) named(req *http.Request) bool {
	return t.is(req.Host) || req.Host == "" && !req.ProtoAtLeast(1, 1)
}

func (t target) standardPort() uint16 {
	if t.tls {
		return 443
	}
	return 80
}

// header is the target as a Host header says it.
func (t target) header() string {
	switch {
	case t.port != t.standardPort():
		return t.String()
	case strings.Contains(t.host, ":"):
		return "[" + t.host + "]"
	}
	return t.host
}

// absolute returns the target of a request in absolute form and the rest of its URI. An
// https URL makes the proxy begin TLS with the target.
func absolute(uri string) (to target, rest string, err error) {
	scheme, after, ok := strings.Cut(uri, "://")
	if !ok {
		return to, "", errors.New("the proxy serves CONNECT and absolute http:// and https:// URLs")
	}
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		to.tls = true
	default:
		return to, "", fmt.Errorf("the proxy does not serve %q URLs", scheme)
	}
	authority, rest := cutAuthority(after)
	to.host, to.port, err = splitHost(authority, to.standardPort())
	return to, rest, err
}

// splitHost reads host, host:port or [address]:port as policy spells hosts.
// Without a port it is standard; 0 makes the port obligatory.
func splitHost(s string, standard uint16) (string, uint16, error) {
	host, digits := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, digits = s[:i], s[i+1:]
		if digits == "" || digits[0] == '0' || digits[0] == '+' {
			return "", 0, fmt.Errorf("authority %.80q has no proper port", s)
		}
	}
	port := standard
	if digits != "" {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("authority %.80q has no proper port", s)
		}
		port = uint16(n)
	}
	if port == 0 {
		return "", 0, fmt.Errorf("authority %.80q has no port", s)
	}
	if strings.ContainsRune(host, ':') && host[0] != '[' {
		return "", 0, fmt.Errorf("authority %.80q: an IPv6 address stands in brackets", s)
	}
	name, err := policy.NormalizeHost(host)
	return name, port, err
}
