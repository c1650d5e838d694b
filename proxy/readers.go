// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/proxy/inspect"
)

// Buffers are lent out. The large ones only while the first bytes of a connection
// are looked at, the others while there is traffic.
var (
	readers      = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, inspect.MaxHello) }}
	smallReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, smallHead) }}
	writers      = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}
	copyBuffers  = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}
)

func takeReader(pool *sync.Pool, r io.Reader) *bufio.Reader {
	br := pool.Get().(*bufio.Reader)
	br.Reset(r)
	return br
}

func giveReader(pool *sync.Pool, br *bufio.Reader) {
	br.Reset(nil)
	pool.Put(br)
}

// tidying says that tidySoon has been called and has not been done.
var tidying atomic.Bool

// tidySoon gives memory back to the system in a while: connections have become
// quiet, and without traffic the collector would not run.
func tidySoon() {
	if tidying.CompareAndSwap(false, true) {
		time.AfterFunc(tidyAfter, func() {
			tidying.Store(false)
			// Each collection empties half of the pools and halves idle stacks.
			runtime.GC()
			debug.FreeOSMemory()
		})
	}
}

func takeWriter(w io.Writer) *bufio.Writer {
	bw := writers.Get().(*bufio.Writer)
	bw.Reset(w)
	return bw
}

func giveWriter(bw *bufio.Writer) {
	bw.Reset(nil)
	writers.Put(bw)
}

// clientConn is the sandbox's end. Bytes that were only looked at are given back
// to it and read again.
type clientConn struct {
	*net.TCPConn
	first []byte
	// open is true if the client's first line may still become a request, which
	// carryLine stops.
	open bool
}

// unread gives back what br holds, which was read from c.
func (c *clientConn) unread(br *bufio.Reader) {
	held, _ := br.Peek(br.Buffered())
	c.first = slices.Concat(held, c.first)
}

func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.first)
	if c.first = c.first[n:]; len(c.first) == 0 {
		c.first = nil
	}
	return n, nil
}
