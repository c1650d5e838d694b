// SPDX-License-Identifier: Apache-2.0

package proxy

import "golang.org/x/net/http2"

// fieldCounter counts the fields of HTTP/2 heads and trailers without decoding them (RFC
// 7541): the library bounds the bytes of a head and not the number of its fields, each of
// which takes memory.
type fieldCounter struct {
	// fields is the number of fields of the head so far. bytes is the number of bytes that
	// their strings have at most once they are decoded, without those of the tables.
	fields int
	bytes  int64
	// left is the number of bytes of the frame that are still to come. lead is the number
	// of bytes before its fields, pad of those after them. padded is true until pad is
	// read.
	left, lead, pad uint32
	padded          bool
	state           fieldState
	// name is true while a name is read, which a value follows. huffman is true if the
	// string is encoded.
	name, huffman bool
	// n is the number that is being read, or the number of bytes of a string that are still
	// to come. shift is the position of the next bits of the number.
	n     uint32
	shift uint
}

type fieldState uint8

const (
	atField   fieldState = iota
	inIndex              // of a field without a string
	inName               // the index of a name, which a value follows
	atString             // the first byte of a length
	inLength             // the rest of a length
	inString             // in its bytes
	malformed            // the library refuses it
)

// frame begins a frame of the given type. Only HEADERS and CONTINUATION have fields.
func (c *fieldCounter) frame(kind http2.FrameType, flags http2.Flags, length uint32) {
	switch kind {
	case http2.FrameHeaders:
		*c = fieldCounter{left: length, padded: flags.Has(http2.FlagHeadersPadded)}
		if flags.Has(http2.FlagHeadersPriority) {
			c.lead = 5 // the stream that this one depends on, and a weight
		}
	case http2.FrameContinuation:
		c.left, c.lead, c.pad, c.padded = length, 0, 0, false
	default:
		c.left = 0
	}
}

// scan reads the next bytes of the frame's payload.
func (c *fieldCounter) scan(p []byte) {
	for len(p) > 0 && c.left > 0 {
		if c.state == inString && !c.padded && c.lead == 0 {
			n := min(c.n, uint32(len(p)), c.left-min(c.pad, c.left))
			p, c.left, c.n = p[n:], c.left-n, c.n-n
			if c.n == 0 {
				c.endString()
			}
			if n > 0 {
				continue
			}
		}
		b := p[0]
		p = p[1:]
		c.left--
		switch {
		case c.padded:
			c.pad, c.padded = uint32(b), false
		case c.lead > 0:
			c.lead--
		case c.left < c.pad:
		default:
			c.next(b)
		}
	}
}

// next reads one byte of the fields.
func (c *fieldCounter) next(b byte) {
	switch c.state {
	case atField:
		c.field(b)
	case inIndex, inName:
		if b&0x80 == 0 {
			c.endIndex()
		}
	case atString:
		c.n, c.shift, c.huffman = uint32(b&0x7f), 0, b&0x80 != 0
		if c.state = inLength; b&0x7f != 0x7f {
			c.beginString()
		}
	case inLength:
		if c.shift > 21 {
			c.state = malformed
			return
		}
		c.n += uint32(b&0x7f) << c.shift
		c.shift += 7
		if b&0x80 == 0 {
			c.beginString()
		}
	case inString, malformed:
	}
}

// field reads the first byte of a field, or of a change of the table's size.
func (c *fieldCounter) field(b byte) {
	var index, most byte
	c.state = inName
	switch {
	case b&0x80 != 0:
		index, most, c.state = b&0x7f, 0x7f, inIndex
	case b&0x40 != 0:
		index, most = b&0x3f, 0x3f
	case b&0x20 != 0:
		index, most, c.state = b&0x1f, 0x1f, inIndex
		c.fields--
	default:
		index, most = b&0x0f, 0x0f
	}
	c.fields++
	c.name = c.state == inName && index == 0
	if index != most {
		c.endIndex()
	}
}

func (c *fieldCounter) endIndex() {
	if c.state == inName {
		c.state = atString
	} else {
		c.state = atField
	}
}

// beginString begins a string of c.n bytes.
func (c *fieldCounter) beginString() {
	c.state = inString
	if c.huffman {
		c.bytes += int64(c.n) * 8 / leastBits
	} else {
		c.bytes += int64(c.n)
	}
	if c.n == 0 {
		c.endString()
	}
}

func (c *fieldCounter) endString() {
	if c.name {
		c.name, c.state = false, atString
	} else {
		c.state = atField
	}
}
