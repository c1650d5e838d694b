// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSocketsLateAnswer: after a guard that is late, the connection stays open, and the late
// answer is not taken for that of the next request.
func TestSocketsLateAnswer(t *testing.T) {
	guards, workers := socketConns(t)
	var broken error
	s := NewSockets(workers, func(err error) { broken = err })
	s.timeout = 20 * time.Millisecond
	if _, err := s.Open(netip.MustParseAddr("10.0.0.1")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the guard does not answer: %v", err)
	}
	if broken != nil {
		t.Errorf("reported as broken: %v", broken)
	}
	s.timeout = time.Minute
	late, lateEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	go func() {
		answerSocket(guards, socketMade, lateEnd) // to the first request
		lateEnd.Close()
		answerSocket(guards, socketNone, nil)
		own, err := os.Open(os.DevNull)
		if err == nil {
			answerSocket(guards, socketMade, own)
			own.Close()
		}
	}()
	if f, err := s.Open(netip.MustParseAddr("192.0.2.1")); !errors.Is(err, ErrNotOwn) {
		t.Errorf("the address of another: %v, %v", f, err)
	}
	// The end of the pipe was in the late answer: the read ends once the worker closes it.
	_ = late.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := late.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the socket of the late answer is open")
	}
	f, err := s.Open(netip.MustParseAddr("10.0.0.1"))
	if err != nil {
		t.Fatalf("a later request: %v", err)
	}
	f.Close()
}

// TestSocketsBroken: the worker learns that the guard has closed the connection.
func TestSocketsBroken(t *testing.T) {
	guards, workers := socketConns(t)
	guards.Close()
	var broken error
	s := NewSockets(workers, func(err error) { broken = err })
	if _, err := s.Open(netip.MustParseAddr("10.0.0.1")); !errors.Is(err, ErrBroken) || !errors.Is(broken, ErrBroken) {
		t.Errorf("error %v, reported %v", err, broken)
	}
}

// answerSocket reads one request and answers it.
func answerSocket(conn *net.UnixConn, answer byte, f *os.File) {
	b := make([]byte, numberSize+maxAddress)
	if n, err := conn.Read(b); err != nil || n < numberSize {
		return
	}
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	_, _, _ = conn.WriteMsgUnix(append(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b)), answer), rights, nil)
}

func socketConns(t *testing.T) (guards, workers *net.UnixConn) {
	t.Helper()
	guards, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	conn, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guards.Close(); conn.Close() })
	return guards, conn.(*net.UnixConn)
}
