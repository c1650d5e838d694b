// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// ends are the two ends of a TCP connection.
func ends(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); a.Close() })
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

// Through pipes and, where there are none left, through buffers.
func TestTransferIsWhole(t *testing.T) {
	const size = 8 << 20
	for _, way := range []string{"pipes", "buffers"} {
		t.Run(way, func(t *testing.T) {
			if way == "buffers" {
				closePipes()
				all := make([]*pipeBuffer, maxPipes)
				for i := range all {
					all[i] = takePipeBuffer(nil)
					defer all[i].give()
				}
			}
			sent := make([]byte, size)
			_, _ = rand.Read(sent)
			client, from := ends(t)
			to, server := ends(t)
			go func() {
				_, _ = client.Write(sent)
				_ = client.CloseWrite()
			}()
			first := []byte("what was looked at")
			done := make(chan int64, 1)
			go func() {
				n, err := transfer(nil, to, &clientConn{TCPConn: from, first: first})
				if err != nil {
					t.Error(err)
				}
				_ = to.CloseWrite()
				done <- n
			}()
			got, err := io.ReadAll(server)
			if want := append(first, sent...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrived of %d, %v", len(got), len(want), err)
			}
			if n := <-done; n != int64(len(got)) {
				t.Errorf("says %d bytes, %d arrived", n, len(got))
			}
		})
	}
}

// What the receiver did not take never reaches the next connection.
func TestPipesAreGivenBackEmpty(t *testing.T) {
	client, from := ends(t)
	to, server := ends(t)
	_ = server.SetReadBuffer(1)
	_ = to.SetWriteBuffer(1)
	go func() { _, _ = client.Write(bytes.Repeat([]byte("x"), 16<<20)) }()
	failed := make(chan error, 1)
	go func() {
		_, err := transfer(nil, to, from)
		failed <- err
	}()
	if _, err := io.ReadFull(server, make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	reset(server)
	if err := <-failed; !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("a receiver that is gone: %v", err)
	}
	pipes.Lock()
	defer pipes.Unlock()
	for _, v := range pipes.idle {
		if n, err := unix.IoctlGetInt(v.r, unix.TIOCINQ); err != nil || n != 0 {
			t.Errorf("a pipe with %d bytes, %v", n, err)
		}
	}
}

func openPipes() int {
	pipes.Lock()
	defer pipes.Unlock()
	return pipes.open
}

func TestIdleTransfersHoldNothing(t *testing.T) {
	closePipes()
	before := openFDs()
	for range 2 * maxPipes {
		_, from := ends(t)
		to, _ := ends(t)
		go func() { _, _ = transfer(nil, to, from) }()
	}
	if !settles(func() bool { closePipes(); return openFDs() == before+4*2*maxPipes && openPipes() == 0 }) {
		t.Errorf("%d descriptors for %d connections", openFDs()-before, 4*maxPipes)
	}
}
