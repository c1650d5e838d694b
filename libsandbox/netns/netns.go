// SPDX-License-Identifier: Apache-2.0

// Package netns makes a container's network namespace lead to the proxy: every
// TCP connection and every DNS query that starts inside reaches the proxy's
// listeners, which are in the namespace too, or nothing. Connections that came in
// from outside (published ports, probes) are answered.
//
// Two locks hold independently. nftables redirects and rejects; and policy
// routing gives packets without a mark of ours no route but the one to lo, so
// that with the rules gone they still end inside. Without a proxy the redirects
// lead to closed ports.
//
// It uses netlink only and executes nothing. It does not hide that the namespace
// exists, and it does not filter what comes in.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrHost is returned for the caller's own namespace: closing it would cut the
// host off, and a container in it is no sandbox.
var ErrHost = errors.New("the container shares the runtime's network namespace")

// New makes a network namespace, with nothing but a lo that is down.
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

// Capture makes ns (an open /proc/PID/ns/net) lead to the proxy. It may be
// called again: the rules are replaced in one transaction.
func Capture(ns *os.File) error {
	return Within(ns, func() error {
		// The rules first: there is no moment in which only routes hold.
		if err := rules(); err != nil {
			return fmt.Errorf("apply nftables rules: %w", err)
		}
		return routes()
	})
}

// Refresh follows the interfaces that an engine has plugged into a captured
// namespace.
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

// Within runs f on a thread in the namespace ns, which must not be the caller's
// own.
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

// ownThread runs f on a thread that ends with it, in whatever namespace: the
// thread never comes back to the host's half way. The process's first thread
// could not end, and it is the one whose namespaces /proc/self shows.
//
// Preconditions: called as a goroutine of its own.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// While this goroutine holds the first thread, another one gets another.
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}
