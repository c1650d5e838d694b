// SPDX-License-Identifier: Apache-2.0

package inspect

import "slices"

// Reading says what HTTP servers make of the first line of a connection.
type Reading uint8

// The readings.
const (
	// Undecided means that the bytes so far are no request, and may become one.
	Undecided Reading = iota
	// NoRequest means that no known server reads the line as a request, whatever follows.
	NoRequest
	// Request means that some server reads the line as a request.
	Request
)

// Line reads the first line of a connection without TLS, in pieces of any size, and finds
// out whether some HTTP server takes it for a request. Servers differ in the bytes that they
// drop before the line, in the bytes that separate its words, in the methods that they accept
// and in what may stand behind the target. A line is a [Request] if, after any number of
// blanks,
//
//   - the first word is a method in capital letters and the line has "http/" anywhere in it,
//     in any case, or
//   - the second word begins with "/", "http:" or "https:", and the first has no small letter
//     (waitress reads headers after such a line) or a blank follows the second (mini_httpd,
//     thttpd and the JDK's server accept anything there), or
//   - the third word begins with "http/" and a digit (Go, Python's http.server, h11), or the
//     last word is such a version and the first is a token (Squid, which accepts blanks in
//     the target), or
//   - it is the first line of the PROXY protocol, after which a request may follow.
//
// More than maxBlank blanks before the first word count as a request, too. Binary protocols
// have a NUL or more than maxControls other control bytes near their beginning: these end the
// line as LF does. The zero value is a Line of which nothing was read. It needs no more memory
// for a longer line.
type Line struct {
	reading Reading
	// improper is true once CheckHead refuses the line, whatever follows.
	improper bool

	// lead is the number of blanks before the first word, unsigned is true if they are not
	// those of proxySignature, and indented if the last one is not an LF. The JDK's server
	// and waitress take some of them for a method.
	lead               int
	unsigned, indented bool
	controls           int

	// word is the number of the current or last word, from 1. blank is true between words.
	word  int
	blank bool
	// size is the size of the current word, and start has its first bytes in small letters.
	size  int
	start [len("https:")]byte
	// version is true if the current word, or the last one of the line, is a version.
	version bool

	// first has the start of the first word as it is, and firstSize its size. kinds are the
	// classes that all its bytes have, and small is true if one is a small letter.
	first     [len("CONNECT")]byte
	firstSize int
	kinds     class
	small     bool

	// blanks is the number of blanks after the first word. field is the number of the
	// current word for servers that separate words by spaces alone, and space is true if
	// there was one since the last word. For a server that separates words by some of the
	// other blanks, too, the number is between field and word.
	blanks int
	field  int
	space  bool
	// path is true if the current word is the second one for some server and begins like a
	// target of HTTP, and cr if a CR came directly after it.
	path, cr bool
	// protocol is how much of "http/" the last bytes are.
	protocol int
}

const (
	versionStart = "http/"
	// proxySignature begins version 2 of the PROXY protocol, before a NUL.
	proxySignature = "\r\n\r\n"
)

// usualMethods are the methods of RFC 9110 and PATCH.
var usualMethods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// Read reads the next bytes of the connection. What comes after the line is ignored.
func (l *Line) Read(b []byte) Reading {
	for i := 0; i < len(b) && l.reading == Undecided; i++ {
		l.reading = l.next(b[i])
	}
	return l.reading
}

// End says that there are no more bytes.
func (l *Line) End() Reading {
	if l.reading == Undecided {
		l.reading = l.end()
	}
	return l.reading
}

func (l *Line) next(c byte) Reading {
	is := classes[c]
	switch {
	case l.word == 0 && is&blank != 0:
		return l.leading(c)
	case c == 0 && l.word == 0 && !l.unsigned && l.lead == len(proxySignature):
		return Request
	case c == 0 || c == '\n':
		return l.end()
	}
	if is&control != 0 {
		if l.controls++; l.controls > maxControls {
			return l.end()
		}
	}
	if is&blank != 0 {
		return l.between(c)
	}
	if l.cr {
		return Request // the CR was a blank
	}
	if l.word == 0 || l.blank {
		if l.begin(); l.field > 3 && l.kinds&token == 0 {
			return NoRequest
		}
	}
	if l.size < len(l.start) {
		l.start[l.size] = lowered(c)
	}
	l.size++
	if l.word == 1 {
		return l.inFirst(c, is)
	}
	return l.inRest(c)
}

// leading reads a blank before the first word.
func (l *Line) leading(c byte) Reading {
	l.unsigned = l.unsigned || l.lead >= len(proxySignature) || c != proxySignature[l.lead]
	// CheckHead drops an empty line.
	l.improper = l.unsigned || l.lead >= maxEmptyLines*len("\r\n")
	l.indented = c != '\n'
	if l.lead++; l.lead == maxBlank {
		return Request
	}
	return Undecided
}

// begin begins a word.
func (l *Line) begin() {
	if l.word++; l.word == 1 {
		l.kinds, l.improper = method|token, l.improper || l.lead%len("\r\n") != 0
		if l.indented {
			l.blanks = 1
		}
	}
	if l.word == 1 || l.space {
		l.field++
	}
	l.blank, l.space, l.version, l.path, l.size = false, false, false, false, 0
}

// inFirst reads a byte of the first word.
func (l *Line) inFirst(c byte, is class) Reading {
	if l.size <= len(l.first) {
		l.first[l.size-1] = c
	}
	l.firstSize = l.size
	l.kinds &= is
	l.small = l.small || 'a' <= c && c <= 'z'
	l.improper = l.improper || l.kinds&method == 0 || l.size > MaxMethod
	if l.indented && l.target() {
		return Request
	}
	return Undecided
}

// target reports whether the bytes of the current word so far are what targets of HTTP begin
// with.
func (l *Line) target() bool {
	switch l.size {
	case 1:
		return l.start[0] == '/'
	case len("http:"):
		return string(l.start[:l.size]) == "http:"
	case len("https:"):
		return string(l.start[:l.size]) == "https:"
	}
	return false
}

// inRest reads a byte of a later word.
func (l *Line) inRest(c byte) Reading {
	c = lowered(c)
	if c == versionStart[l.protocol] {
		l.protocol++
	} else {
		l.protocol = 0
		if c == versionStart[0] {
			l.protocol = 1
		}
	}
	switch {
	case l.protocol == len(versionStart):
		if l.kinds&method != 0 {
			return Request
		}
		l.protocol = 0
	case l.field <= 2 && l.target():
		if !l.small {
			return Request
		}
		l.path = true
	}
	switch {
	case l.size == len(versionStart)+1 && string(l.start[:len(versionStart)]) == versionStart && classes[c]&digit != 0 && l.blanks > 1:
		if l.field <= 3 {
			return Request
		}
		l.version = true
	case classes[c]&digit == 0 && c != '.':
		l.version = false
	}
	return Undecided
}

// between reads a blank after a word.
func (l *Line) between(c byte) Reading {
	if l.word == 1 && !l.blank && string(l.first[:min(l.firstSize, len(l.first))]) == "PROXY" {
		return Request
	}
	if l.path {
		if l.cr || c != '\r' {
			return Request
		}
		l.cr = true
	}
	l.improper = l.improper || c != ' ' || l.blank
	l.blank, l.space = true, l.space || c == ' '
	l.blanks++
	l.protocol = 0
	return Undecided
}

// end ends the line.
func (l *Line) end() Reading {
	if l.version && l.kinds&token != 0 {
		return Request
	}
	return NoRequest
}

// begins reports whether the line may still become a request that [CheckHead] accepts, with
// a usual method.
func (l *Line) begins() bool {
	if l.improper || l.word == 0 {
		return false
	}
	whole := l.word > 1 || l.blank
	return slices.ContainsFunc(usualMethods[:], func(m string) bool {
		return l.firstSize <= len(m) && string(l.first[:l.firstSize]) == m[:l.firstSize] && (!whole || l.firstSize == len(m))
	})
}

func lowered(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
