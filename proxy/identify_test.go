// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"openshell.dev/runtime/proxy/identity"
)

// slowIdentity answers when it is told to.
type slowIdentity struct {
	fakeIdentity
	asked, answer chan struct{}
}

func (s *slowIdentity) Holders(local, remote netip.AddrPort) ([]identity.Process, error) {
	s.asked <- struct{}{}
	<-s.answer
	return s.fakeIdentity.Holders(local, remote)
}

// An answer that will soon be too old is renewed while requests go on; one that is
// too old is waited for, and an error then is one.
func TestHoldersAreAskedForAgain(t *testing.T) {
	id := &slowIdentity{asked: make(chan struct{}, 1), answer: make(chan struct{})}
	id.set(nil, curl)
	c := &connection{server: New(Config{Identity: id})}
	known := func(age time.Duration) {
		c.held.Store(&holders{[]identity.Process{{Container: container, Binary: "/bin/old"}}, time.Now().Add(-age), 0})
	}
	known(0)
	for range 3 {
		if err := c.identify(); err != nil {
			t.Fatal(err)
		}
	}
	<-id.asked
	if got := c.who()[0].Binary; got != "/bin/old" {
		t.Errorf("before the answer: %s", got)
	}
	id.answer <- struct{}{}
	c.server.tasks.Wait()
	if got := c.who()[0].Binary; got != curl || len(id.asked) != 0 {
		t.Errorf("after the answer: %s, asked %d times more", got, len(id.asked))
	}

	id.set(errors.New("nobody"))
	known(0)
	if err := c.identify(); err != nil {
		t.Errorf("while the answer is young enough: %v", err)
	}
	id.answer <- struct{}{}
	c.server.tasks.Wait()
	<-id.asked
	known(IdentityAge)
	failed := make(chan error, 1)
	go func() { failed <- c.identify() }()
	<-id.asked
	select {
	case err := <-failed:
		t.Errorf("an old answer was not waited for: %v", err)
	case id.answer <- struct{}{}:
	}
	if err := <-failed; err == nil {
		t.Error("an old answer serves on after an error")
	}
}

// TestIdentifyAfterWait: a handler that outlives the server starts nothing, because
// nobody waits for it.
func TestIdentifyAfterWait(t *testing.T) {
	id := &fakeIdentity{}
	c := &connection{server: New(Config{Identity: id})}
	c.held.Store(&holders{[]identity.Process{{Container: container, Binary: "/bin/old"}}, time.Now(), 0})
	c.server.Wait()
	for range 2 {
		if err := c.identify(); err != nil {
			t.Error(err)
		}
	}
	if !c.asking.TryLock() {
		t.Error("the lock of the query is still held")
	}
}
