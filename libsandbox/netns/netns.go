// SPDX-License-Identifier: Apache-2.0

// Package netns redirects a container's network namespace to the proxy. Every TCP
// connection and every DNS query that starts inside reaches the proxy's listeners, which
// are in the same namespace, or fails. Connections from outside, as to published ports and
// from probes, are answered.
//
// Two mechanisms enforce this independently of each other. nftables rules redirect or
// reject packets ([Capture] replaces them in one transaction). Policy routing gives every
// packet without a mark of this package only the route to lo, so without the nftables rules
// the packets still stay inside. Without a proxy the redirections lead to closed ports.
//
// [New] creates a namespace, [Capture] redirects it, [Refresh] adapts it to interfaces that
// an engine has added, and [Listen] opens the proxy's sockets in it.
//
// The package uses netlink only and executes no program. It does not hide the namespace
// from the workload, and does not filter incoming traffic.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrHost is returned for the caller's own namespace. Capturing it would cut the host off,
// and a container that shares it is not a sandbox.
var ErrHost = errors.New("the container shares the runtime's network namespace")

// New creates a network namespace that has only lo, which is down.
func New() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result, 1)
	go ownThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("create network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{f, err}
	})
	r := <-done
	return r.file, r.err
}

// Capture redirects the namespace ns, an open /proc/PID/ns/net, to the proxy. It may be
// called again: it replaces the rules in one transaction.
func Capture(ns *os.File) error {
	return Within(ns, func() error {
		// The nftables rules come first, so that the routes never apply alone.
		if err := rules(); err != nil {
			return fmt.Errorf("apply nftables rules: %w", err)
		}
		return routes()
	})
}

// Refresh adapts a captured namespace to the interfaces that an engine has added.
func Refresh(ns *os.File) error { return Within(ns, routes) }

// Foreign returns ErrHost if ns is the caller's own namespace.
func Foreign(ns *os.File) error {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("look at own network namespace: %w", err)
	}
	st, err := ns.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if os.SameFile(own, st) {
		return ErrHost
	}
	return nil
}

// Within runs f on a thread in the namespace ns, which must not be the caller's own.
func Within(ns *os.File, f func() error) error {
	if err := Foreign(ns); err != nil {
		return err
	}
	done := make(chan error, 1)
	go ownThread(func() {
		if err := netns.Set(netns.NsHandle(ns.Fd())); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	})
	return <-done
}

// ownThread runs f on a thread that exits afterwards, whatever its namespace then is: the
// thread is never reused half-way back in the host's namespace. It avoids the process's
// first thread, which cannot exit and whose namespaces /proc/self shows.
//
// Preconditions: it is called as a goroutine of its own.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// While this goroutine is locked to the first thread, the inner one gets another
	// thread.
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}
