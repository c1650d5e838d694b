// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/harden"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/control"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/dns"
	"openshell.dev/runtime/proxy/guard"
	"openshell.dev/runtime/proxy/memory"
	"openshell.dev/runtime/proxy/upstream"
)

func runWorker() error {
	if err := harden.Process(); err != nil {
		return err
	}
	for fd := proxyapi.FDWorkerIdentity; fd < proxyapi.FDWorkerListeners+proxyapi.Listeners; fd++ {
		unix.CloseOnExec(fd)
	}
	if err := dieFirst(); err != nil {
		return err
	}
	w := &worker{config: &proxyapi.WorkerConfig{}, documents: proxyapi.NewDecoder(os.Stdin), started: time.Now().UTC()}
	if err := w.documents.Decode(w.config); err != nil {
		return fmt.Errorf("read the guard's document: %w", err)
	}
	return w.run()
}

// workerScore is added to the guard's oom_score_adj for the worker. The range of a score
// is -1000 to 1000. Of the two the kernel kills the worker first, which the guard
// replaces.
const workerScore = 300

// dieFirst makes the kernel kill this process before the guard when memory runs out. A
// process needs no rights to raise its score.
//
// Preconditions: /proc can be written.
func dieFirst() error {
	const file = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the guard's score: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read the guard's score: %w", err)
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(min(score+workerScore, maxScore))), 0); err != nil {
		return fmt.Errorf("raise the worker's score: %w", err)
	}
	return nil
}

// maxScore is the kernel's OOM_SCORE_ADJ_MAX.
const maxScore = 1000

type worker struct {
	config    *proxyapi.WorkerConfig
	documents *proxyapi.Decoder
	started   time.Time
	server    *proxy.Server
	sandbox   *proxy.Sandbox
	routers   *routerFactory
	guard     *guard.Client
	// lost gets the error with which the guard's connection for sockets broke.
	lost chan error

	authority *ca.Authority
	roots     func() *x509.CertPool
	set       *credentials.Set
	first     *revision
	// log is last to be opened and closed by who prepares.
	log *decisionlog.Log
}

// prepare does all that needs no container.
func (w *worker) prepare() (err error) {
	c := w.config
	if w.authority, err = ca.Load(c.CACert, []byte(c.CAKey.Reveal())); err != nil {
		return err
	}
	if w.roots, err = upstream.Roots(c.UpstreamRoots); err != nil {
		return err
	}
	if w.set, err = credentialSet(c.Providers, c.AnyPlace, nil); err != nil {
		return err
	}
	if w.first, err = first(c); err != nil {
		return err
	}
	w.log, err = decisionlog.Open(c.LogDir, c.ID, decisionlog.Options{})
	return err
}

// check fails if no worker could do with what c says: a container is not made with
// it.
func check(c *proxyapi.WorkerConfig) (out guard.Checked, err error) {
	w := &worker{config: c}
	if err := w.prepare(); err != nil {
		return out, err
	}
	defer w.log.Close()
	if _, err := newRouterFactory(nil, w.roots, nil, w.log).router(c.Inference); err != nil {
		return out, err
	}
	if _, err := newMiddlewares(c, nil, w.roots); err != nil {
		return out, err
	}
	p, err := policy.Parse(w.first.name, w.first.text)
	if err != nil {
		return out, err
	}
	if _, err := policy.Compile(p, policy.CompileOptions{}); err != nil {
		return out, err
	}
	out.Binaries = p.Binaries()
	out.Asks = slices.ContainsFunc(p.Middlewares, func(m policy.Middleware) bool { return m.Uses != policy.RegexMiddleware })
	return out, nil
}

// run serves the sandbox until the guard ends it.
func (w *worker) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	own, err := w.connect()
	if err != nil {
		return err
	}
	if err := w.prepare(); err != nil {
		return err
	}
	defer w.log.Close()
	var ctr proxyapi.Container
	if err := w.documents.Decode(&ctr); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // there will be none
		}
		return fmt.Errorf("read the guard's second document: %w", err)
	}
	// The process collects garbage more often instead of growing beyond its budget.
	debug.SetMemoryLimit(memory.Default + memory.Base)
	if err := w.assemble(&ctr, own); err != nil {
		return err
	}
	dir := policies(&w.config.Config)
	if err := w.begin(dir); err != nil {
		return err
	}
	commands, err := control.New(judge{w}, dir)
	if err != nil {
		return err
	}
	trimLater(workerGarbage)
	if err := lockDown([]string{dir, w.config.LogDir}, w.config.Egress == proxyapi.EgressNamespace); err != nil {
		return err
	}
	if err := w.guard.Ready(nil); err != nil {
		return fmt.Errorf("tell the guard: %w", err)
	}
	names := dns.New(dns.Config{View: w.server.View, Normalize: policy.NormalizeHost, V6: true})
	return w.serve(ctx, names, commands)
}

// connect takes over the guard's sockets: one for questions, and one for sockets in the
// container's network namespace, which it returns.
func (w *worker) connect() (*own, error) {
	f := os.NewFile(proxyapi.FDWorkerIdentity, "guard")
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use the guard's socket: %w", err)
	}
	_ = f.Close()
	w.guard = guard.NewClient(conn)
	w.lost = make(chan error, 1)
	return newOwn(proxyapi.FDWorkerSockets, func(err error) {
		select {
		case w.lost <- err:
		default:
		}
	})
}

// assemble makes the server, its sandbox for the container, and the router.
//
// Preconditions: the process is not locked down.
func (w *worker) assemble(ctr *proxyapi.Container, own *own) error {
	c := w.config
	mark, loopback := 0, netip.Addr{}
	if c.Egress == proxyapi.EgressNamespace {
		mark, loopback = proxyapi.Mark, proxyapi.LoopbackSource
	}
	machine, noMachine := machineAddresses(c.Egress)
	dial := upstream.New(upstream.Config{Hosts: withMachine(ctr.Hosts, machine), Resolvers: ctr.Resolvers, Mark: mark, LoopbackSource: loopback, Synthetic: dns.Synthetic})
	reach := operatorDial(c.Egress, dial, machine, noMachine)
	middlewares, err := newMiddlewares(c, reach, w.roots)
	if err != nil {
		return err
	}
	w.server = proxy.New(proxy.Config{Identity: w.guard, Log: w.log, Memory: memory.Default})
	w.sandbox, err = w.server.Add(proxy.SandboxConfig{
		Container: c.ID, CA: w.authority, Roots: w.roots, Hosts: ctr.Hosts, Log: w.log, Enforce: c.Enforce,
		TerminatePlainTLS: c.TerminatePlainTLS, MayNamePrograms: c.MayNamePrograms, Machine: machine, Own: own, OwnNames: ctr.Own,
		ControlPlanePorts: c.ControlPlanePorts, Upstream: dial, Middlewares: middlewares,
	})
	if err != nil {
		return err
	}
	w.routers = newRouterFactory(reach, w.roots, w.sandbox.Transform, w.log)
	return w.applyInference(c.Inference)
}

// begin puts the credentials and the first policy in force. If a policy in dir, the folder
// of revisions, was refused such that everything is denied, that stays so.
func (w *worker) begin(dir string) error {
	w.sandbox.SetCredentials(w.set)
	if err := w.sandbox.Load(w.first.name, w.first.text, w.first.revision); err != nil {
		return errors.Join(err, w.guard.Ready(err))
	}
	refused, name, err := control.Refused(dir)
	if err != nil {
		return err
	}
	if refused > 0 {
		w.sandbox.DenyAll(name, refused)
	}
	return nil
}

// revision is a policy to begin with.
type revision struct {
	name     string
	text     []byte
	revision int
}

// first is the newest revision: the one the container was created with, which is
// kept as the first, or what a worker before this one had in force.
func first(c *proxyapi.WorkerConfig) (*revision, error) {
	dir := policies(&c.Config)
	n, text, name, err := control.Latest(dir)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		n, text, name = 1, c.PolicyText, c.PolicyName
		if err := control.First(dir, name, text); err != nil {
			return nil, err
		}
	}
	return &revision{name, text, n}, nil
}

// policies is the folder of the policy's revisions.
func policies(c *proxyapi.Config) string { return filepath.Join(c.StateDir, proxyapi.PoliciesDir) }

// serve runs every listener until one fails or ctx ends.
func (w *worker) serve(ctx context.Context, names *dns.Server, commands *control.Server) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	run := func(what string, f func() error) {
		go func() {
			if err := f(); err != nil {
				stop(fmt.Errorf("%s: %w", what, err))
			}
		}()
	}
	served := 0
	for _, i := range []int{proxyapi.ProxyTCP4, proxyapi.ProxyTCP6} {
		if l := listener(proxyapi.FDWorkerListeners + i); l != nil {
			served++
			run("serve connections", func() error { return w.server.Serve(ctx, l) })
		}
	}
	for _, i := range []int{0, 1} {
		udp, tcp := packets(proxyapi.FDWorkerListeners+proxyapi.DNSUDP4+i), listener(proxyapi.FDWorkerListeners+proxyapi.DNSTCP4+i)
		if udp != nil && tcp != nil {
			run("serve names", func() error { return names.Serve(ctx, udp, tcp) })
		}
	}
	socket := listener(proxyapi.FDWorkerControl)
	if served == 0 || socket == nil {
		return errors.New("no listener was donated")
	}
	run("serve commands", func() error { return commands.Serve(socket) })
	go w.follow()
	// Without the connection the worker ends, and the guard starts another.
	run("reach the sandbox itself", func() error {
		select {
		case err := <-w.lost:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	<-ctx.Done()
	_ = commands.Close()
	w.server.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// judge is the proxy as the control socket commands it.
type judge struct{ w *worker }

func (j judge) Load(name string, text []byte) (int, error) {
	_, n, _ := j.w.sandbox.Loaded()
	err := j.w.sandbox.Load(name, text, n+1)
	switch {
	case errors.Is(err, proxy.ErrInvalid):
		invalid := &proxyapi.Failure{Code: proxyapi.CodeInvalidPolicy, Detail: err.Error()}
		if j.w.config.FailClosed {
			invalid.Denies = n + 1
			j.w.sandbox.DenyAll(name, n+1)
		}
		return 0, invalid
	case err != nil:
		return 0, err
	}
	return n + 1, nil
}

func (j judge) Status() proxyapi.Status {
	name, n, since := j.w.sandbox.Loaded()
	return proxyapi.Status{
		ID: j.w.config.ID, Revision: n, Policy: name, Since: since, Closed: j.w.sandbox.Closed(), Connections: j.w.sandbox.Connections(),
		Pid: os.Getpid(), Started: j.w.started,
	}
}

func (j judge) Metrics() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# TYPE openshell_connections gauge\nopenshell_connections %d\n", j.w.sandbox.Connections())
	t := j.w.log.Totals()
	fmt.Fprintf(&b, "# TYPE openshell_decisions_total counter\nopenshell_decisions_total{verdict=\"allow\"} %d\nopenshell_decisions_total{verdict=\"audit\"} %d\nopenshell_decisions_total{verdict=\"deny\"} %d\nopenshell_decisions_total{verdict=\"failed\"} %d\n", t.Allow, t.Audit, t.Deny, t.Failed)
	j.w.routers.meter.WriteMetrics(&b)
	return b.Bytes()
}
