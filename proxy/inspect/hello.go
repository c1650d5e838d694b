// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hello is what a ClientHello says of where it wants to go.
type Hello struct {
	// ServerName is the SNI as sent: letters, digits, '-', '_' and dots, never an
	// address. Empty if there is none.
	ServerName string
	ALPN       []string
	// ECH says that the hello carries an encrypted one, whose name may be another
	// than ServerName. Clients also send it filled with noise.
	ECH bool
}

// ErrHello is what every error about the bytes of a ClientHello wraps.
var ErrHello = errors.New("malformed ClientHello")

const (
	recordHandshake  = 22
	recordHeader     = 5
	handshakeHeader  = 4
	typeClientHello  = 1
	extServerName    = 0
	extALPN          = 16
	extESNI          = 0xffce
	extECHFirstDraft = 0xfe08
	extECH           = 0xfe0d
	nameTypeHost     = 0
)

// peekHello puts a ClientHello together from as many records as it takes.
func peekHello(br *bufio.Reader) (*Hello, error) {
	var msg []byte
	for off := 0; ; {
		if off+recordHeader > MaxHello {
			return nil, hello("longer than %d bytes", MaxHello)
		}
		b, err := atLeast(br, off+recordHeader)
		if err != nil {
			return nil, err
		}
		b = b[off:]
		n := int(binary.BigEndian.Uint16(b[3:]))
		switch {
		case b[0] != recordHandshake || b[1] != 3:
			return nil, hello("a record is no TLS handshake")
		case n == 0 || n > maxRecord:
			return nil, hello("a record has a length of %d", n)
		case off+recordHeader+n > MaxHello:
			return nil, hello("longer than %d bytes", MaxHello)
		}
		start := off + recordHeader
		off = start + n
		if b, err = atLeast(br, off); err != nil {
			return nil, err
		}
		part := b[start:off]
		if whole, err := complete(part); msg == nil && (whole || err != nil) {
			if err != nil {
				return nil, err
			}
			return parseHello(part[handshakeHeader:])
		}
		msg = append(msg, part...)
		whole, err := complete(msg)
		if err != nil {
			return nil, err
		}
		if whole {
			return parseHello(msg[handshakeHeader:])
		}
	}
}

// complete says whether msg is one whole handshake message.
func complete(msg []byte) (bool, error) {
	if msg[0] != typeClientHello {
		return false, hello("handshake message is of type %d", msg[0])
	}
	if len(msg) < handshakeHeader {
		return false, nil
	}
	n := handshakeHeader + int(binary.BigEndian.Uint32(msg)&0xffffff)
	switch {
	case n > MaxHello:
		return false, hello("longer than %d bytes", MaxHello)
	case len(msg) > n:
		return false, hello("something follows in the same record")
	}
	return len(msg) == n, nil
}

func hello(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrHello, fmt.Sprintf(format, a...))
}

// parseHello reads the body of a ClientHello (RFC 8446, section 4.1.2).
func parseHello(body []byte) (*Hello, error) {
	c := cursor(body)
	_, ok := c.take(2 + 32) // version, random
	session, ok2 := c.vector(1)
	suites, ok3 := c.vector(2)
	compression, ok4 := c.vector(1)
	if !ok || !ok2 || !ok3 || !ok4 || len(session) > 32 || len(suites) == 0 || len(suites)%2 != 0 || len(compression) == 0 {
		return nil, hello("its fixed part is broken")
	}
	h := new(Hello)
	if len(c) == 0 {
		return h, nil
	}
	exts, ok := c.vector(2)
	if !ok || len(c) != 0 {
		return nil, hello("extensions have a wrong length")
	}
	var seen [maxExtensions]uint16
	for n := 0; len(exts) > 0; n++ {
		typ, ok := exts.uint16()
		data, ok2 := exts.vector(2)
		if !ok || !ok2 {
			return nil, hello("an extension is cut short")
		}
		if n == maxExtensions {
			return nil, hello("more than %d extensions", maxExtensions)
		}
		// Which of two a server goes by is not known.
		if slices.Contains(seen[:n], typ) {
			return nil, hello("two extensions of type %d", typ)
		}
		seen[n] = typ
		if err := h.extension(typ, data); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *Hello) extension(typ uint16, data cursor) (err error) {
	switch {
	case typ == extServerName:
		h.ServerName, err = serverName(data)
	case typ == extALPN:
		h.ALPN, err = protocols(data)
	case typ >= extECHFirstDraft && typ <= extECH || typ == extESNI:
		h.ECH = true
	}
	return err
}

// serverName reads the one host name that RFC 6066, section 3 allows.
func serverName(data cursor) (string, error) {
	list, ok := data.vector(2)
	typ, ok2 := list.take(1)
	name, ok3 := list.vector(2)
	switch {
	case !ok || !ok2 || !ok3 || len(data) != 0:
		return "", hello("the server name is cut short")
	case len(list) != 0:
		return "", hello("several server names")
	case typ[0] != nameTypeHost || len(name) == 0:
		return "", hello("the server name is empty or no host name")
	}
	for _, b := range name {
		if classes[b]&host == 0 {
			return "", hello("the server name has a byte that no host name has")
		}
	}
	s := string(name)
	if _, err := netip.ParseAddr(s); err == nil || strings.ContainsAny(s, ":[]") || s[len(s)-1] == '.' {
		return "", hello("the server name is an address, has a port or ends in a dot")
	}
	return s, nil
}

func protocols(data cursor) ([]string, error) {
	list, ok := data.vector(2)
	if !ok || len(data) != 0 || len(list) == 0 {
		return nil, hello("the list of protocols has a wrong length")
	}
	var out []string
	for len(list) > 0 {
		p, ok := list.vector(1)
		if !ok || len(p) == 0 {
			return nil, hello("a protocol is empty or cut short")
		}
		out = append(out, string(p))
	}
	return out, nil
}

// cursor is what is left to read. What does not fit reads as nothing.
type cursor []byte

func (c *cursor) take(n int) (cursor, bool) {
	if len(*c) < n {
		return nil, false
	}
	b := (*c)[:n]
	*c = (*c)[n:]
	return b, true
}

func (c *cursor) uint16() (uint16, bool) {
	b, ok := c.take(2)
	if !ok {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// vector reads a length of size bytes and what it counts.
func (c *cursor) vector(size int) (cursor, bool) {
	b, ok := c.take(size)
	if !ok {
		return nil, false
	}
	n := 0
	for _, x := range b {
		n = n<<8 | int(x)
	}
	return c.take(n)
}
