// SPDX-License-Identifier: Apache-2.0

// Package guard keeps the proxy of a container running. Three processes of the program
// openshell-proxy do so, all of them outside the container:
//
//   - The worker reads what the workload sends: it has the proxy.Server, the policy and
//     the credentials. It is the one that could be taken over, so it has no rights to lose.
//   - The guard holds what must survive a worker: the listeners, the sandbox's CA, the
//     control socket and the newest credentials. It starts a worker, and the next one when
//     that dies, and answers the worker's questions that need rights: which processes hold
//     a connection, where programs lie in the container, and sockets in its network
//     namespace. It parses nothing of the workload's.
//   - The standby has the guard's descriptors and follows its credentials. It waits for the
//     guard's end and then is the guard; it starts a standby of its own.
//
// So whichever of the three is killed is replaced by another. A guard that is killed takes
// its worker along, and until the standby is the guard connections are refused. If all are
// killed at once nothing is left that judges, so nothing passes. All of them end with the
// first process of the container.
//
// The runtime starts the guard with [Guard.Run]. A standby calls [Guard.Follow] and
// [AwaitGuard] first. The worker asks with a [Client].
//
// This package does not judge connections and does not read policies: see package proxy.
package guard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/trust"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/identity"
)

const (
	// restartFirst and restartMost bound the pause before a new worker: short
	// enough not to be noticed, longer when workers keep dying.
	restartFirst = 10 * time.Millisecond
	restartMost  = 5 * time.Second
	// standbyAfter is how long after the start of the container there is a standby:
	// a start must not wait for it. A guard that is killed before leaves nothing
	// that lets anything pass.
	standbyAfter = 500 * time.Millisecond
	// workerAfter is how long after the start of the container there is a worker, if
	// nobody has spoken to the proxy before: a container that ends at once needs
	// none, others find it running.
	workerAfter = 500 * time.Millisecond
	// askTimeout bounds the wait for the operator's services before a container is
	// made: within it the first worker has started, and asked.
	askTimeout = 5 * time.Second
	// steady is how long a worker must have lived for its death to be the first.
	steady = 10 * time.Second
	// stopTimeout is how long a worker may take to write its last records.
	stopTimeout = 2 * time.Second
)

// Guard supervises one container's proxy.
type Guard struct {
	Config *proxyapi.Config
	// Documents gives the proxyapi.Container, or ends.
	Documents *proxyapi.Decoder
	// Ready, Netns and Listeners are donated by the runtime. Ready is nil for a
	// guard that takes the place of another, and so is Check.
	Ready, Netns *os.File
	// Check fails if no worker could serve.
	Check     func(*proxyapi.WorkerConfig) (Checked, error)
	Listeners [proxyapi.Listeners]*os.File
	// Init is a pidfd of the container's first process; nil until it is known.
	Init *os.File

	// attached is closed once container and who are set; ended once the container
	// has ended, or will not be.
	attached, ended chan struct{}
	container       proxyapi.Container
	who             *identity.Resolver
	// secrets are Config's as updates have made them; refreshes has a refresher run for
	// them.
	secrets   live
	refreshes sync.Once
	// checked is what Check says; aliases is where the programs' paths led before the
	// workload ran, until the first worker has asked for it.
	checked   Checked
	aliases   atomic.Pointer[map[string][]string]
	readiness readiness
	// cert is the sandbox's CA (PEM). first is the state of the CA stores before the
	// container started, nil for a guard that takes the place of another.
	cert  []byte
	first *trust.Snapshot
}

// Checked is what the guard knows of the policy.
type Checked struct {
	// Binaries are the programs that it names.
	Binaries []string
	// Asks says that the operator's services are asked about it, which a worker does:
	// the container is made if they do not refuse.
	Asks bool
}

// readiness tells the runtime once that the proxy serves.
type readiness struct {
	mu      sync.Mutex
	ready   *os.File // nil if the runtime does not wait
	refused error
	// done is closed once the runtime is told.
	done chan struct{}
}

// report tells the runtime that the proxy serves, or with refused notes why it cannot. The
// first call counts.
func (r *readiness) report(refused string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return
	default:
	}
	if r.refused != nil {
		return
	}
	if refused != "" {
		r.refused = errors.New(refused)
		return
	}
	if r.ready != nil {
		_, _ = r.ready.WriteString(proxyapi.ReadyWord)
		_ = r.ready.Close()
	}
	close(r.done)
}

func (r *readiness) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// Run returns when the container has ended, or when no worker could serve it.
func (g *Guard) Run() error {
	g.attached, g.ended = make(chan struct{}), make(chan struct{})
	g.secrets.begin(g.Config)
	w := &proxyapi.WorkerConfig{Config: *g.Config}
	var err error
	if w.CACert, w.CAKey, err = authority(g.Config); err != nil {
		return err
	}
	g.cert = w.CACert
	if g.Check != nil {
		first, left, err := trust.Begin(&g.Config.Trust, g.cert)
		if err != nil {
			return err
		}
		g.first = first
		for _, why := range left {
			g.report("Java programs that use this keystore do not trust the sandbox's CA: " + why)
		}
		if g.checked, err = g.Check(w); err != nil {
			return err
		}
	}
	control, err := listen(filepath.Join(g.Config.StateDir, proxyapi.ControlSocketFile))
	if err != nil {
		return err
	}
	defer control.Close()
	leave, err := g.receive()
	if err != nil {
		return err
	}
	defer leave()
	failed := make(chan error, 1)
	go func() {
		defer close(g.ended)
		failed <- g.attach()
	}()
	// Workers are forked from one thread, which stays in their namespace and is
	// what their death signal is tied to.
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if g.Config.Egress == proxyapi.EgressNamespace {
			if err := netns.Set(netns.NsHandle(g.Netns.Fd())); err != nil {
				result <- fmt.Errorf("enter the container's network namespace: %w", err)
				return
			}
		}
		if err := dropCapabilities(g.Config.Egress == proxyapi.EgressNamespace); err != nil {
			result <- err
			return
		}
		result <- g.serve(w, control)
	}()
	if err := <-result; err != nil {
		return err
	}
	return <-failed
}

// attach waits for the container, and for its end.
func (g *Guard) attach() error {
	if g.Init == nil {
		if err := g.Documents.Decode(&g.container); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // there will be none
			}
			return fmt.Errorf("read the runtime's second document: %w", err)
		}
		fd, err := unix.PidfdOpen(g.container.Pid, 0)
		if err != nil {
			return fmt.Errorf("open the container's first process: %w", err)
		}
		g.Init = os.NewFile(uintptr(fd), "init")
	}
	var err error
	if g.who, err = identity.Open(identity.Config{Container: g.Config.ID, Pid: g.container.Pid, Netns: g.Netns}); err != nil {
		return err
	}
	if g.Check != nil {
		found := g.who.Aliases(g.checked.Binaries)
		g.aliases.Store(&found)
	}
	stores, err := trust.Keep(&g.container.Trust, g.cert, g.container.Pid, g.first, g.report)
	switch {
	case err != nil && g.Check != nil:
		return err
	case err != nil:
		// The workload may have moved its folders, which must not end the proxy.
		g.report(fmt.Sprintf("changes of CA stores are not seen: %v", err))
	}
	close(g.attached)
	wait(g.Init)
	if stores == nil {
		return nil
	}
	if err := stores.Close(); err != nil {
		g.report(err.Error())
	}
	return nil
}

// serve keeps a worker from when there is a container and somebody speaks to the
// proxy, or soon, to the container's end. Until there is one, who connects waits.
func (g *Guard) serve(w *proxyapi.WorkerConfig, control *os.File) error {
	select {
	case <-g.attached:
	case <-g.ended:
		return nil
	}
	g.readiness.ready, g.readiness.done = g.Ready, make(chan struct{})
	go g.keepStandby(g.readiness.done)
	if g.checked.Asks {
		// A service that does not answer is no reason not to make the container.
		late := time.AfterFunc(askTimeout, func() { g.readiness.report("") })
		defer late.Stop()
		return g.supervise(w, control)
	}
	g.readiness.report("")
	files := []*os.File{g.Init, control}
	for _, l := range g.Listeners {
		if l != nil {
			files = append(files, l)
		}
	}
	await(workerAfter, files...)
	return g.supervise(w, control)
}

// supervise has a worker run until the container ends, or is not to be made.
func (g *Guard) supervise(w *proxyapi.WorkerConfig, control *os.File) error {
	pause := restartFirst
	for {
		began := time.Now()
		err := g.work(w, control)
		select {
		case <-g.ended:
			return nil
		default:
		}
		if refused := g.readiness.refusal(); refused != nil {
			return refused
		}
		fmt.Fprintf(os.Stderr, "%s worker ended (%v), starting another\n", time.Now().UTC().Format(time.RFC3339), err)
		if time.Since(began) > steady {
			pause = restartFirst
		}
		select {
		case <-g.ended:
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// work runs one worker to its end.
func (g *Guard) work(w *proxyapi.WorkerConfig, control *os.File) error {
	p, pipes, err := g.start(control)
	if err != nil {
		return err
	}
	defer pipes.close()
	server := rpc.NewServer()
	gone := make(chan struct{})
	defer close(gone)
	if err := server.RegisterName(serviceName, &service{g, gone}); err != nil {
		return errors.Join(err, p.Kill(), pipes.documents.Close())
	}
	go g.serveSockets(pipes.sockets)
	go func() {
		defer pipes.documents.Close()
		// A worker that does not read them does not serve either.
		out := proxyapi.NewEncoder(pipes.documents)
		if out.Encode(g.secrets.document(w)) == nil && out.Encode(g.container) == nil {
			server.ServeConn(pipes.questions)
		}
	}()
	return g.awaitWorker(p)
}

// pipes are the guard's ends of what connects it to a worker.
type pipes struct {
	// questions are the worker's, sockets its requests for sockets, and documents has what
	// it begins with. Whoever writes documents closes it.
	questions, sockets *net.UnixConn
	documents          *os.File
}

func (p *pipes) close() {
	_ = p.questions.Close()
	_ = p.sockets.Close()
}

// start starts a worker.
func (g *Guard) start(control *os.File) (_ *os.Process, _ *pipes, err error) {
	var ours pipes
	// theirs are the worker's ends and null, which the guard closes.
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err == nil {
			return
		}
		if ours.questions != nil {
			_ = ours.questions.Close()
		}
		if ours.sockets != nil {
			_ = ours.sockets.Close()
		}
		if ours.documents != nil {
			_ = ours.documents.Close()
		}
	}()
	var questions, sockets, documents, null *os.File
	if ours.questions, questions, err = socketpair(unix.SOCK_STREAM); err != nil {
		return nil, nil, err
	}
	theirs = append(theirs, questions)
	if ours.sockets, sockets, err = socketpair(unix.SOCK_SEQPACKET); err != nil {
		return nil, nil, err
	}
	theirs = append(theirs, sockets)
	if documents, ours.documents, err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("create pipe: %w", err)
	}
	theirs = append(theirs, documents)
	if null, err = os.Open(os.DevNull); err != nil {
		return nil, nil, err
	}
	theirs = append(theirs, null)
	files := []*os.File{documents, os.Stderr, os.Stderr, questions, sockets, control}
	for _, l := range g.Listeners {
		if l == nil {
			l = null
		}
		files = append(files, l)
	}
	p, err := os.StartProcess("/proc/self/exe", []string{proxyapi.ProgramProxy, proxyapi.RoleWorker, g.Config.ID}, &os.ProcAttr{
		Files: files, Env: []string{},
		Sys: &unix.SysProcAttr{Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("start worker: %w", err)
	}
	return p, &ours, nil
}

// awaitWorker returns the error with which a worker ended. When the container has ended it
// stops the worker and returns nil.
func (g *Guard) awaitWorker(p *os.Process) error {
	done := make(chan error, 1)
	go func() {
		st, err := p.Wait()
		if err == nil {
			err = errors.New(st.String())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-g.ended:
	}
	_ = p.Signal(unix.SIGTERM)
	select {
	case <-done:
	case <-time.After(stopTimeout):
		_ = p.Kill()
		<-done
	}
	return nil
}

// authority loads the sandbox's CA, or makes it: it outlives every worker and the
// guard, because the container trusts this one.
func authority(c *proxyapi.Config) (cert []byte, key secret.Secret, err error) {
	certFile, keyFile := filepath.Join(c.StateDir, proxyapi.CACertFile), filepath.Join(c.StateDir, proxyapi.CAKeyFile)
	cert, err = os.ReadFile(certFile)
	if err == nil {
		text, err := os.ReadFile(keyFile)
		return cert, secret.New(string(text)), err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, key, fmt.Errorf("read the sandbox's CA: %w", err)
	}
	a, err := ca.New(c.ID, time.Now())
	if err != nil {
		return nil, key, err
	}
	cert, text := a.PEM()
	// The key first: a certificate without its key could not be used again.
	if err := os.WriteFile(keyFile, text, 0o600); err != nil {
		return nil, key, fmt.Errorf("write the sandbox's CA: %w", err)
	}
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		return nil, key, fmt.Errorf("write the sandbox's CA: %w", err)
	}
	return cert, secret.New(string(text)), nil
}

// report writes to the proxy's log.
func (g *Guard) report(what string) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().UTC().Format(time.RFC3339), what)
}

// listen opens the control socket, for root alone. A long state folder does not
// fit an address of 108 bytes; its descriptor does.
func listen(path string) (*os.File, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open control socket's folder: %w", err)
	}
	defer dir.Close()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("protect control socket: %w", err)
	}
	return l.File()
}

func socketpair(kind int) (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "guard")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "worker")
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("use socket pair: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// wait returns when the process behind a pidfd has ended.
func wait(pidfd *os.File) { await(-1, pidfd) }

// await returns when one of files can be read, a connection waits on it or its
// process has ended; or after so long, unless that is negative.
func await(most time.Duration, files ...*os.File) {
	p := make([]unix.PollFd, 0, len(files))
	for _, f := range files {
		p = append(p, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLIN})
	}
	for began := time.Now(); ; {
		left := -1
		if most >= 0 {
			left = int(max(0, most-time.Since(began)).Milliseconds())
		}
		if _, err := unix.Poll(p, left); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
