// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"openshell.dev/runtime/internal/proxyapi"
)

// live are the secrets of a running proxy. The guard is who knows them: workers and
// standbys come and go, and a worker reads what the workload sends.
type live struct {
	// one makes one change at a time.
	one sync.Mutex

	mu  sync.Mutex
	now *proxyapi.Secrets
	// changed is closed when now is another, told when the worker has spoken.
	changed, told chan struct{}
	known         proxyapi.Known

	// standby is the pipe to the standby; nil without one.
	standbyMu sync.Mutex
	standby   *os.File
	process   *os.Process
}

func (l *live) begin(c *proxyapi.Config) {
	l.now = &proxyapi.Secrets{Generation: 1, Providers: c.Providers, Inference: c.Inference}
	l.changed, l.told = make(chan struct{}), make(chan struct{})
}

func (l *live) current() *proxyapi.Secrets {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// document is what a worker begins with.
func (l *live) document(w *proxyapi.WorkerConfig) *proxyapi.WorkerConfig {
	s, out := l.current(), *w
	out.Providers, out.Inference, out.Generation = s.Providers, s.Inference, s.Generation
	return &out
}

// errWorkerGone ends the question of a worker that is not there any more.
var errWorkerGone = errors.New("the worker has ended")

// after notes what the worker knows and gives what it does not, once there is such.
func (l *live) after(k proxyapi.Known, gone <-chan struct{}) (*proxyapi.Secrets, error) {
	l.mu.Lock()
	l.known = k
	close(l.told)
	l.told = make(chan struct{})
	for l.now.Generation <= k.Generation {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-gone:
			return nil, errWorkerGone
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	return l.now, nil
}

// change makes the secrets what edit returns: the worker uses them when change
// returns, and the standby knows them. Those that the worker refuses are taken back.
func (l *live) change(edit func(*proxyapi.Secrets) (*proxyapi.Secrets, error)) (generation int, err error) {
	l.one.Lock()
	defer l.one.Unlock()
	before := l.current()
	next, err := edit(before)
	if err != nil {
		return 0, err
	}
	n := l.put(*next)
	err = l.await(n)
	var refused *refusedError
	if errors.As(err, &refused) {
		l.put(*before)
	}
	return n, err
}

// put makes s the secrets and tells the standby.
func (l *live) put(s proxyapi.Secrets) int {
	l.mu.Lock()
	s.Generation = l.now.Generation + 1
	l.now = &s
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.standbyMu.Lock()
	defer l.standbyMu.Unlock()
	if l.standby != nil {
		l.tell(&s)
	}
	return s.Generation
}

// refusedError says why a worker does not use what it was told.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return "the proxy refuses them: " + e.reason }

// await returns when the worker has spoken of a generation.
func (l *live) await(generation int) error {
	late := time.After(workerPatience)
	for {
		l.mu.Lock()
		k, told := l.known, l.told
		l.mu.Unlock()
		if k.Generation >= generation {
			if k.Err != "" {
				return &refusedError{k.Err}
			}
			return nil
		}
		select {
		case <-told:
		case <-late:
			return fmt.Errorf("no worker has taken them within %s; the next one begins with them", workerPatience)
		}
	}
}

// tellAlways gives a standby its documents by pipe, and from then on what changes.
func (l *live) tellAlways(g *Guard, pipe *os.File, p *os.Process) {
	l.standbyMu.Lock()
	defer l.standbyMu.Unlock()
	l.standby, l.process = pipe, p
	s, c := l.current(), *g.Config
	c.Providers, c.Inference = s.Providers, s.Inference
	l.tell(&c, &g.container)
}

// tell writes documents to the standby. One that does not read them would be out of
// date, so it ends, and another takes its place.
// Preconditions: standbyMu is held and standby is set.
func (l *live) tell(documents ...any) {
	err := l.standby.SetWriteDeadline(time.Now().Add(standbyPatience))
	out := proxyapi.NewEncoder(l.standby)
	for _, d := range documents {
		if err == nil {
			err = out.Encode(d)
		}
	}
	if err != nil {
		_ = l.process.Kill()
	}
}

// tellNoMore forgets a standby that has ended.
func (l *live) tellNoMore() {
	l.standbyMu.Lock()
	defer l.standbyMu.Unlock()
	_ = l.standby.Close()
	l.standby, l.process = nil, nil
}
