// SPDX-License-Identifier: Apache-2.0

// Package proxyproc starts openshell-proxy beside a container, waits until it serves, and
// ends it.
//
// [Start] starts the proxy before there is a container, so that the proxy prepares itself
// while the container is made. [Proxy.Serve] then tells it which container it serves. The
// proxy gets an empty environment, its listeners as descriptors, and two documents through
// a pipe (package proxyapi). It ends by itself when the container's first process ends;
// [Stop] waits for that.
//
// The package does not prepare the documents (package attach does) and does not open the
// listeners (package netns does).
package proxyproc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/cleanup"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/proxyapi"
)

const (
	// startTimeout bounds the time until the proxy serves.
	startTimeout = 20 * time.Second
	// stopTimeout bounds the time in which the proxy writes its last records after the
	// container's end.
	stopTimeout = 5 * time.Second
	// maxComplaint bounds what an error quotes of a proxy that did not start, in bytes.
	maxComplaint = 4 << 10
)

// Proxy is a proxy that was started.
type Proxy struct {
	cmd       *exec.Cmd
	documents *proxyapi.Encoder
	// pipe carries the documents to the proxy. A goroutine writes the first one, because it
	// can be larger than the pipe's buffer; it closes sent at the end.
	pipe *os.File
	sent chan struct{}
	// ready gets the proxy's word that it serves, or why it does not.
	ready   *os.File
	logFile string
	// records keeps the folder of records from being removed, until the guard does so
	// itself.
	records *decisionlog.Holder
}

// Start starts the proxy. It keeps none of the files. The caller calls [Proxy.Serve] or
// [Proxy.Abort].
func Start(c *proxyapi.Config, netns *os.File, listeners [proxyapi.Listeners]*os.File) (_ *Proxy, err error) {
	var undo cleanup.Stack
	defer undo.Clean()
	program, err := proxyapi.Beside(proxyapi.ProgramProxy)
	if err != nil {
		return nil, err
	}
	p := &Proxy{sent: make(chan struct{}), logFile: filepath.Join(c.LogDir, decisionlog.ProxyFileName)}
	if p.records, err = decisionlog.Hold(c.LogDir); err != nil {
		return nil, err
	}
	undo.Add(func() { _ = p.records.Close() })
	log, err := os.OpenFile(p.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the proxy's log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	documents, pipe, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	defer documents.Close()
	p.pipe, p.documents = pipe, proxyapi.NewEncoder(pipe)
	undo.Add(func() { _ = pipe.Close() })
	ready, readyProxy, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	defer readyProxy.Close()
	p.ready = ready
	undo.Add(func() { _ = ready.Close() })

	p.cmd = exec.Command(program, proxyapi.RoleGuard, c.ID)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = []string{}, "/", log
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	p.cmd.ExtraFiles = append([]*os.File{documents, readyProxy, netns}, orNull(listeners[:], null)...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s, which belongs beside the runtime: %w", proxyapi.ProgramProxy, err)
	}
	_ = undo.Release()
	go func() {
		defer close(p.sent)
		_ = p.documents.Encode(c) // a proxy that does not read it does not become ready
	}()
	return p, nil
}

// orNull returns the listeners with null in place of nil.
func orNull(listeners []*os.File, null *os.File) []*os.File {
	out := slices.Clone(listeners)
	for i, l := range out {
		if l == nil {
			out[i] = null
		}
	}
	return out
}

// Serve tells the proxy which container it serves, and returns when it does.
func (p *Proxy) Serve(c *proxyapi.Container) error {
	_ = p.pipe.SetWriteDeadline(time.Now().Add(startTimeout))
	<-p.sent
	_ = p.documents.Encode(c)
	err := await(p.ready)
	if err != nil {
		p.Abort()
		return fmt.Errorf("%s did not start: %w; see %s", proxyapi.ProgramProxy, err, p.logFile)
	}
	return errors.Join(p.pipe.Close(), p.ready.Close(), p.records.Close(), p.cmd.Process.Release())
}

// Abort ends a proxy that serves no container.
func (p *Proxy) Abort() {
	_ = p.cmd.Process.Kill() // the kernel kills its worker, too
	_ = p.cmd.Wait()
	_, _, _ = p.pipe.Close(), p.ready.Close(), p.records.Close()
}

// await returns nil when the proxy is ready, or the reason why it is not.
func await(ready *os.File) error {
	if err := ready.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(ready, maxComplaint))
	switch {
	case err != nil:
		return fmt.Errorf("wait for it: %w", err)
	case string(said) == proxyapi.ReadyWord:
		return nil
	case len(said) == 0:
		return errors.New("it ended")
	}
	return errors.New(string(said))
}

// Stop waits until the proxy of a sandbox that has ended has ended, too. It kills a proxy
// that does not end. stateDir is the sandbox's folder; Stop returns at once if the sandbox
// never had a proxy.
func Stop(stateDir string) error {
	// The guard first, because it would start another standby.
	return errors.Join(stop(filepath.Join(stateDir, proxyapi.LockFile)), stop(filepath.Join(stateDir, proxyapi.StandbyLockFile)))
}

// stop waits until no process holds a lock, and kills a process that keeps it.
func stop(lock string) error {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the proxy's lock: %w", err)
	}
	defer f.Close()
	if released(f) {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return fmt.Errorf("read the proxy's lock: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("the proxy does not end, and its lock %s names no process", lock)
	}
	if err := kill(pid, f); err != nil {
		return fmt.Errorf("kill the proxy: %w", err)
	}
	if !released(f) {
		return fmt.Errorf("the proxy's process %d does not end", pid)
	}
	return nil
}

// kill kills the process pid, which wrote its ID into the lock file f. If the lock is still
// held after the pidfd was opened, the pidfd is that process's, because the kernel cannot
// have given the ID to another process.
func kill(pid int, f *os.File) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if flock.Try(f, flock.Exclusive) == nil {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// released waits until no process holds the lock. It returns false after stopTimeout.
func released(f *os.File) bool { return flock.Within(f, flock.Exclusive, stopTimeout) == nil }
