// SPDX-License-Identifier: Apache-2.0

// Package proxyproc starts openshell-proxy beside a container and waits until it
// serves. The proxy gets what it needs as descriptors and one document, an empty
// environment, and the container's first process as a pidfd, with whose end it
// ends by itself.
package proxyproc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/flock"
	"openshell.dev/runtime/internal/proxyapi"
)

const (
	// startPatience bounds the time until the proxy serves.
	startPatience = 20 * time.Second
	// stopPatience bounds the time that it may take to write its last records
	// after the container's end.
	stopPatience = 5 * time.Second
	// maxComplaint bounds what is shown of a proxy that did not start, in bytes.
	maxComplaint = 4 << 10
)

// Proxy is one that was started.
type Proxy struct {
	cmd       *exec.Cmd
	documents *json.Encoder
	// pipe carries the documents; what does not fit into it yet is written by a
	// goroutine that closes sent.
	pipe, ready *os.File
	sent        chan struct{}
	logFile     string
	// records is held until the guard holds them.
	records *decisionlog.Holder
}

// Start starts the proxy, which does all that it can before there is a container.
// It keeps none of the files. The caller calls Attach or Abort.
func Start(c *proxyapi.Config, netns *os.File, listeners [proxyapi.Listeners]*os.File) (_ *Proxy, err error) {
	program, err := proxyapi.Beside(proxyapi.ProgramProxy)
	if err != nil {
		return nil, err
	}
	records, err := decisionlog.Hold(c.LogDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = records.Close()
		}
	}()
	logFile := filepath.Join(c.LogDir, decisionlog.ProxyFileName)
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
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
	ready, readyProxy, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create pipe: %w", err), pipe.Close())
	}
	defer readyProxy.Close()

	cmd := exec.Command(program, proxyapi.RoleGuard, c.ID)
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{documents, readyProxy, netns}
	for _, l := range listeners {
		if l == nil {
			l = null
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, l)
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s, which belongs beside the runtime: %w", proxyapi.ProgramProxy, err), pipe.Close(), ready.Close())
	}
	p := &Proxy{cmd: cmd, documents: json.NewEncoder(pipe), pipe: pipe, ready: ready, sent: make(chan struct{}), logFile: logFile, records: records}
	go func() {
		defer close(p.sent)
		_ = p.documents.Encode(c) // a proxy that does not read it does not become ready
	}()
	return p, nil
}

// Attach tells the proxy which container it serves and returns once it does.
func (p *Proxy) Attach(c *proxyapi.Container) error {
	_ = p.pipe.SetWriteDeadline(time.Now().Add(startPatience))
	<-p.sent
	_ = p.documents.Encode(c)
	err := await(p.ready)
	if err != nil {
		p.Abort()
		return fmt.Errorf("%s did not start: %w; see %s", proxyapi.ProgramProxy, err, p.logFile)
	}
	return errors.Join(p.pipe.Close(), p.ready.Close(), p.records.Close(), p.cmd.Process.Release())
}

// Abort ends a proxy that will have no container.
func (p *Proxy) Abort() {
	_ = p.cmd.Process.Kill() // its worker dies with it
	_ = p.cmd.Wait()
	_, _, _ = p.pipe.Close(), p.ready.Close(), p.records.Close()
}

// await reads readiness, or what the proxy says instead.
func await(ready *os.File) error {
	if err := ready.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
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

// Stop waits until the proxy of a sandbox that has ended is gone, and kills it if
// it stays. A sandbox that never had one is none to wait for.
func Stop(stateDir string) error {
	// The guard first, which would start another standby.
	return errors.Join(stop(filepath.Join(stateDir, proxyapi.LockFile)), stop(filepath.Join(stateDir, proxyapi.StandbyLockFile)))
}

// stop waits until nobody holds a lock, or kills who does.
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

// kill ends the process pid, which wrote its id into the lock that f has open. If the lock
// is still held after the pidfd was opened, the pidfd is of that process: the id cannot
// have passed to another one.
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

// released waits until nobody holds the lock, and says whether that is so.
func released(f *os.File) bool { return flock.Within(f, flock.Exclusive, stopPatience) == nil }
