// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// zstdFrames passes a stream of zstd frames (RFC 8878, section 3) to a decoder. It takes
// the memory for a frame's window before the decoder reads the frame's header. A stream
// that it cannot read passes as it is: the decoder reports the error.
type zstdFrames struct {
	r *bufio.Reader
	// need takes the memory that a decoder with some window has, in bytes.
	need func(cost int64) error
	// skipped is called when bytes that expand to nothing were read.
	skipped func() error
	// left is how many bytes pass before the next header of a frame or block.
	left     int64
	inFrame  bool
	checksum bool // of the frame
}

const (
	zstdBlockHeader = 3
	zstdRLE         = 1 // the type of a block of one repeated byte
	zstdChecksum    = 4
	// zstdLeastHeader is the shortest header of a frame with what follows it, in bytes.
	zstdLeastHeader = 6
)

func (z *zstdFrames) Read(p []byte) (int, error) {
	if z.left == 0 {
		if err := z.next(); err != nil {
			return 0, err
		}
	}
	n, err := z.r.Read(p[:min(int64(len(p)), z.left)])
	z.left -= int64(n)
	return n, err
}

// next reads the header of the next frame or block.
func (z *zstdFrames) next() error {
	z.left = math.MaxInt64
	if z.inFrame {
		b, err := z.r.Peek(zstdBlockHeader)
		if err != nil {
			return nil //nolint:nilerr // the decoder meets the end, too, and reports it
		}
		h := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
		size := h >> 3
		if h>>1&3 == zstdRLE {
			size = 1
		}
		z.left = zstdBlockHeader + size
		if last := h & 1; last == 1 {
			z.inFrame = false
			if z.checksum {
				z.left += zstdChecksum
			}
		}
		return nil
	}
	h, ok := z.header()
	for ; ok && h.Skippable; h, ok = z.header() {
		if err := z.skip(int64(h.HeaderSize) + int64(h.SkippableSize)); err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	window = min(max(window, minWindow), maxWindow)
	z.left, z.inFrame, z.checksum = int64(h.HeaderSize), true, h.HasCheckSum
	return z.need(int64(window+min(window, zstdMore)) + zstdLeast)
}

// skip reads n bytes.
func (z *zstdFrames) skip(n int64) error {
	for n > 0 {
		if _, err := z.r.Peek(1); err != nil {
			return err
		}
		k, _ := z.r.Discard(int(min(n, int64(z.r.Buffered()))))
		n -= int64(k)
		if err := z.skipped(); err != nil {
			return err
		}
	}
	return nil
}

// header reads as little as a frame's header needs: the sender may wait for an answer
// before it sends more.
func (z *zstdFrames) header() (h zstd.Header, ok bool) {
	for n := zstdLeastHeader; n <= zstd.HeaderMaxSize; n++ {
		b, err := z.r.Peek(n)
		if err != nil {
			return h, false
		}
		if err := h.Decode(b); !errors.Is(err, io.ErrUnexpectedEOF) {
			return h, err == nil
		}
	}
	return h, false
}

// gzipMembers expands the members of a gzip file. Zeros may stand between and behind them,
// as tapes and gzip(1) have it.
type gzipMembers struct {
	*gzip.Reader
	r *bufio.Reader
	// skipped is called when zeros were read.
	skipped func() error
}

func newGzipMembers(r *bufio.Reader, skipped func() error) (*gzipMembers, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gzipMembers{z, r, skipped}, nil
}

func (g *gzipMembers) Read(p []byte) (int, error) {
	for {
		n, err := g.Reader.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			if errors.Is(err, io.EOF) {
				err = nil // the next call looks for a member
			}
			return n, err
		}
		if err := g.next(); err != nil {
			return 0, err
		}
	}
}

// WriteTo writes as the decoder does, which the search of answers depends on.
func (g *gzipMembers) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := g.Reader.WriteTo(w)
		total += n
		if err == nil {
			err = g.next()
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// next begins the next member. The error is io.EOF if there is none.
func (g *gzipMembers) next() error {
	for {
		if _, err := g.r.Peek(1); err != nil {
			return err
		}
		b, _ := g.r.Peek(g.r.Buffered())
		zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
		if zeros == 0 {
			break
		}
		_, _ = g.r.Discard(zeros)
		if err := g.skipped(); err != nil {
			return err
		}
	}
	if err := g.Reset(g.r); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	g.Multistream(false)
	return nil
}
