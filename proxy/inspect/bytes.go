// SPDX-License-Identifier: Apache-2.0

package inspect

// class is what a byte may be part of.
type class uint8

const (
	// method is the alphabet of registered methods, which is smaller than that of
	// tokens: case-insensitive readers see no other method in it.
	method class = 1 << iota
	// token is a field name (RFC 9110, section 5.6.2).
	token
	// target is a request target: visible ASCII without the '#' that some cut at, and bytes
	// that may be UTF-8, which the caller escapes.
	target
	// value is a field value.
	value
	// host is a host, with a port or brackets.
	host
	digit
	// blank separates the words of a request line for some server. Python's http.server
	// splits Latin-1 text at all of them.
	blank
	// control is a control byte of ASCII that is not a blank.
	control
)

var classes = func() (t [256]class) {
	add := func(c class, bytes string) {
		for i := range len(bytes) {
			t[bytes[i]] |= c
		}
	}
	const upper, lower, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
	add(method, upper+digits+"-")
	add(token, upper+lower+digits+"!#$%&'*+-.^_`|~")
	add(host, upper+lower+digits+"-._:[]")
	add(digit, digits)
	add(blank, " \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0")
	for i := range byte(' ') {
		if t[i]&blank == 0 {
			t[i] |= control
		}
	}
	t[0x7f] |= control
	for i := '!'; i <= '~'; i++ {
		t[i] |= target | value
	}
	t['#'] &^= target
	for i := 0x80; i <= 0xff; i++ {
		t[i] |= target | value
	}
	t[' '] |= value
	t['\t'] |= value
	return t
}()

// all says that every byte of b is of class c.
func all(b []byte, c class) bool {
	for _, x := range b {
		if classes[x]&c == 0 {
			return false
		}
	}
	return true
}

// Method says whether s is a method that all readers see alike, as CheckHead asks
// of HTTP/1.
func Method(s string) bool {
	return s != "" && len(s) <= MaxMethod && all([]byte(s), method) && s != "PRI"
}

// Length reports whether s is a body's length as CheckHead asks of HTTP/1.
func Length(s string) bool {
	_, ok := number([]byte(s))
	return ok
}
