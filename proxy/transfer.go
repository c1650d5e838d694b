// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/proxy/memory"
)

// transfer copies from one connection to the other until its end, in the kernel if
// both are TCP and nothing else.
//
// The standard library would do so, too, but with a large pipe for each direction
// for as long as it lasts. The kernel grants a user without privileges few of
// them, in all sandboxes together; who has more gets tiny ones from then on, and so
// does whatever else that user runs.
func transfer(account *memory.Account, to, from net.Conn) (n int64, err error) {
	if c, ok := from.(*clientConn); ok {
		if n, err = carryLine(to, c); err != nil {
			return n, err
		}
		first := c.first
		c.first = nil
		rest, err := io.Copy(to, bytes.NewReader(first))
		if n += rest; err != nil {
			return n, err
		}
		from = c.TCPConn
	}
	if c, ok := to.(*clientConn); ok {
		to = c.TCPConn
	}
	var m int64
	in, ok := from.(*net.TCPConn)
	if out, both := to.(*net.TCPConn); ok && both {
		m, err = move(account, out, in)
	} else {
		m, err = io.Copy(to, from)
	}
	return n + m, err
}

// move copies until the end. It holds nothing while there is nothing to copy.
func move(account *memory.Account, to, from *net.TCPConn) (total int64, err error) {
	in, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	out, err := to.SyscallConn()
	if err != nil {
		return 0, err
	}
	var v *pipeBuffer
	var failed error
	fill := func(fd uintptr) bool {
		v = takePipeBuffer(account)
		if failed = v.fill(int(fd)); errors.Is(failed, unix.EAGAIN) {
			v.give()
			return false
		}
		return true
	}
	empty := func(fd uintptr) bool {
		before := v.n
		failed = v.empty(int(fd))
		total += int64(before - v.n)
		return !errors.Is(failed, unix.EAGAIN)
	}
	for {
		if err = in.Read(fill); err != nil {
			return total, err
		}
		err = failed
		end := err == nil && v.n == 0
		for err == nil && v.n > 0 {
			if err = errors.Join(out.Write(empty), failed); err != nil {
				err = &writeError{err}
			}
		}
		v.give()
		if end || err != nil {
			return total, err
		}
	}
}

// pipeBuffer holds what is on its way from one socket to another: a pipe, which the
// kernel fills and empties without copying, or a buffer where there are pipes
// enough.
type pipeBuffer struct {
	r, w int // the pipe's ends
	buf  *[]byte
	// account holds the memory of buf; nil for a small one, which is a part of
	// connectionCost.
	account *memory.Account
	// n is how many bytes are in it; of a buffer, those after the first gone.
	n, gone int
}

// pipes are those that nobody uses, the last one used last: it is still in the
// processor's cache. open counts also those in use.
var pipes struct {
	sync.Mutex
	idle []*pipeBuffer
	open int
	// closing says that closePipes has been called for and has not come.
	closing bool
}

func takePipeBuffer(account *memory.Account) *pipeBuffer {
	pipes.Lock()
	if last := len(pipes.idle) - 1; last >= 0 {
		v := pipes.idle[last]
		pipes.idle = pipes.idle[:last]
		pipes.Unlock()
		return v
	}
	enough := pipes.open == maxPipes
	if !enough {
		pipes.open++
	}
	pipes.Unlock()
	if !enough {
		if v, err := newPipe(); err == nil {
			return v
		}
		pipes.Lock()
		pipes.open--
		pipes.Unlock()
	}
	if account.Try(copyBuffer) {
		return &pipeBuffer{buf: copyBuffers.Get().(*[]byte), account: account}
	}
	buf := make([]byte, smallPipeBuffer)
	return &pipeBuffer{buf: &buf}
}

func newPipe() (*pipeBuffer, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	// One that stays small is slower, nothing else.
	_, _ = unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipeBuffer{r: ends[0], w: ends[1]}, nil
}

// give gives the pipeBuffer back. A pipe that still holds something ends.
func (v *pipeBuffer) give() {
	if v.buf != nil {
		if v.account != nil {
			copyBuffers.Put(v.buf)
			v.account.Release(copyBuffer)
		}
		return
	}
	pipes.Lock()
	defer pipes.Unlock()
	if v.n > 0 {
		v.close()
		pipes.open--
		return
	}
	pipes.idle = append(pipes.idle, v)
	if !pipes.closing {
		pipes.closing = true
		time.AfterFunc(tidyAfter, closePipes)
	}
}

func (v *pipeBuffer) close() {
	_ = unix.Close(v.r)
	_ = unix.Close(v.w)
}

// closePipes ends the pipes that nobody uses: others want some.
func closePipes() {
	pipes.Lock()
	defer pipes.Unlock()
	pipes.closing = false
	for _, v := range pipes.idle {
		v.close()
	}
	pipes.open -= len(pipes.idle)
	pipes.idle = nil
}

// fill takes what a socket has; nothing is its end.
func (v *pipeBuffer) fill(fd int) error {
	if v.buf != nil {
		n, err := again(func() (int, error) { return unix.Read(fd, *v.buf) })
		v.n, v.gone = n, 0
		return os.NewSyscallError("read", err)
	}
	n, err := again(func() (int, error) { return splice(fd, v.w, pipeSize) })
	v.n = n
	return os.NewSyscallError("splice", err)
}

// empty gives a socket what it takes of it.
func (v *pipeBuffer) empty(fd int) error {
	if v.buf != nil {
		n, err := again(func() (int, error) { return unix.Write(fd, (*v.buf)[v.gone:v.gone+v.n]) })
		v.n, v.gone = v.n-n, v.gone+n
		return os.NewSyscallError("write", err)
	}
	n, err := again(func() (int, error) { return splice(v.r, fd, v.n) })
	v.n -= n
	return os.NewSyscallError("splice", err)
}

func splice(from, to, size int) (int, error) {
	n, err := unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_NONBLOCK)
	return int(n), err
}

// again repeats a call that a signal interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}
