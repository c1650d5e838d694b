// SPDX-License-Identifier: Apache-2.0

// Command openshell-proxy judges what leaves a sandbox. The runtime starts it
// beside a container and donates its descriptors; nobody starts it by hand.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/harden"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/proxy/guard"
)

// heapLimit makes the collector work rather than a guard or standby grow, in bytes. A
// worker's limit follows from its budget.
const heapLimit = 64 << 20

// A guard has next to no traffic and stays small once it has started. A worker's
// garbage is collected less often under load; what that leaves it gives back when
// connections become quiet.
const (
	guardGarbage  = 50
	workerGarbage = 300
)

func main() {
	debug.SetMemoryLimit(heapLimit)
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	var err error
	switch role {
	case proxyapi.RoleGuard:
		err = runGuard()
	case proxyapi.RoleWorker:
		err = runWorker()
	case proxyapi.RoleStandby:
		err = runStandby()
	default:
		err = errByHand
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "openshell-proxy: %v\n", err)
		os.Exit(1)
	}
}

// errByHand is shown to a person who starts the program.
var errByHand = errors.New("started without the runtime's descriptors: the runtime starts it, nobody else")

func runGuard() (err error) {
	ready := os.NewFile(proxyapi.FDGuardReady, "ready")
	if _, err := unix.FcntlInt(proxyapi.FDGuardReady, unix.F_GETFD, 0); err != nil {
		return errByHand
	}
	defer func() {
		// The runtime shows what it reads in place of readiness.
		if err != nil {
			_, _ = fmt.Fprint(ready, err)
		}
	}()
	if err := harden.Process(); err != nil {
		return err
	}
	g, err := newGuard(os.NewFile(proxyapi.FDGuardConfig, "config"))
	if err != nil {
		return err
	}
	g.Ready, g.Check = ready, check
	return guardUntilEnd(g)
}

// runStandby waits for a guard's end and then is the guard.
func runStandby() error {
	name := append([]byte(proxyapi.StandbyName), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return fmt.Errorf("take a name: %w", err)
	}
	unix.CloseOnExec(proxyapi.FDStandbyInit)
	unix.CloseOnExec(proxyapi.FDStandbyGuard)
	if err := harden.Process(); err != nil {
		return err
	}
	g, err := newGuard(os.NewFile(proxyapi.FDGuardConfig, "config"))
	if err != nil {
		return err
	}
	followed := make(chan error, 1)
	go func() { followed <- g.Follow() }()
	lock, err := hold(filepath.Join(g.Config.StateDir, proxyapi.StandbyLockFile))
	if err != nil {
		return err
	}
	// Between the end of the guard and its place being taken, the log is still that of a
	// running sandbox.
	records, err := decisionlog.Hold(g.Config.LogDir)
	if err != nil {
		return err
	}
	defer records.Close()
	g.Init = os.NewFile(proxyapi.FDStandbyInit, "init")
	alone, err := guard.AwaitGuard(g.Init, os.NewFile(proxyapi.FDStandbyGuard, "guard"))
	// As the guard it has a standby of its own.
	if err = errors.Join(err, lock.Close()); err != nil || !alone {
		return err
	}
	// Nobody else holds the other end: what the guard said last is read to its end.
	if err := <-followed; err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s the guard ended, the standby takes its place\n", time.Now().UTC().Format(time.RFC3339))
	return guardUntilEnd(g)
}

// newGuard makes the guard of the donated descriptors and documents, which hold
// secrets.
//
// Preconditions: the process is hardened.
func newGuard(documents io.Reader) (*guard.Guard, error) {
	for fd := proxyapi.FDGuardConfig; fd < proxyapi.FDGuardListeners+proxyapi.Listeners; fd++ {
		unix.CloseOnExec(fd)
	}
	trimLater(guardGarbage)
	g := &guard.Guard{
		Config: &proxyapi.Config{}, Documents: proxyapi.NewDecoder(documents),
		Netns: os.NewFile(proxyapi.FDGuardNetns, "netns"),
	}
	if err := g.Documents.Decode(g.Config); err != nil {
		return nil, fmt.Errorf("read the runtime's document: %w", err)
	}
	for i := range g.Listeners {
		g.Listeners[i] = os.NewFile(uintptr(proxyapi.FDGuardListeners+i), "listener")
	}
	return g, nil
}

func guardUntilEnd(g *guard.Guard) error {
	lock, err := hold(filepath.Join(g.Config.StateDir, proxyapi.LockFile))
	if err != nil {
		return err
	}
	defer lock.Close()
	records, err := decisionlog.Hold(g.Config.LogDir)
	if err != nil {
		return err
	}
	defer records.Close()
	return g.Run()
}

const (
	// lockPatience bounds the wait for a lock whose holder has just ended.
	lockPatience = time.Second
)

// hold keeps a file locked for as long as the guard or standby lives and writes its
// pid: who can take the lock knows that there is none.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the proxy's lock: %w", err)
	}
	// A guard that was killed while it forked leaves the lock to its child, which is
	// about to close it.
	if err := flock.Within(f, flock.Exclusive, lockPatience); err != nil {
		return nil, errors.Join(fmt.Errorf("another proxy serves this sandbox (%s is locked): %w", path, err), f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprint(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the proxy's lock: %w", err), f.Close())
	}
	return f, nil
}

// listener uses a donated descriptor; nil if that is not a socket.
func listener(fd int) net.Listener {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil
	}
	return l
}

func packets(fd int) net.PacketConn {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil
	}
	return c
}
