// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// churn starts and ends processes on the host, three at a time, until it is stopped.
func churn(t *testing.T) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var loops sync.WaitGroup
	for range 3 {
		loops.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Env: []string{}})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = p.Wait()
			}
		})
	}
	return func() {
		close(done)
		loops.Wait()
	}
}

// TestBypass_B93_CreatesWhileProcessesEnd: many creates at once succeed, with processes
// of the host that start and end meanwhile.
func TestBypass_B93_CreatesWhileProcessesEnd(t *testing.T) {
	const creates, atOnce = 64, 32
	w := newWorld(t, testPolicy)
	dir := w.bundle()
	defer churn(t)()
	var tasks sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range creates {
		slots <- struct{}{}
		tasks.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprintf("churn%d-%d", i, os.Getpid())
			if out, err := w.runtime("run", "--detach", "--bundle", dir, id); err != nil {
				t.Errorf("create: %v: %s", err, out)
			}
			if out, err := w.runtime("delete", "--force", id); err != nil {
				t.Errorf("delete: %v: %s", err, out)
			}
		})
	}
	tasks.Wait()
}

// TestBypass_B93_ConnectionsWhileProcessesEnd: with a loop of short processes in the
// sandbox and another one on the host, each allowed request goes through.
func TestBypass_B93_ConnectionsWhileProcessesEnd(t *testing.T) {
	const requests = 60
	b := newBox(t, boxOptions{})
	defer churn(t)()
	out := b.exec("/bin/probe", "besieged", fmt.Sprint(requests), "https://api.test/ok/x")
	if want := fmt.Sprintf("ok: %d of %d", requests, requests); out != want {
		t.Errorf("printed %q, want %q; refusals:\n%s", out, want, strings.Join(b.log(), "\n"))
	}
	if got := len(b.up.Requests()); got != requests {
		t.Errorf("the upstream saw %d requests", got)
	}
}
