// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair opens two sockets of this process and returns their inodes.
func socketPair(t *testing.T) (inodes [2]uint32) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	for i, fd := range fds {
		t.Cleanup(func() { unix.Close(fd) })
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st))
		inodes[i] = uint32(st.Ino)
	}
	return inodes
}

// TestBypass_B62_LookupsShareASearch: lookups that wait share one search, and none takes
// part in a search that began before it: a descriptor may have been handed on since.
func TestBypass_B62_LookupsShareASearch(t *testing.T) {
	inodes := socketPair(t)
	var s sweeps
	const waiting = 50
	began, release := make(chan struct{}), make(chan struct{})
	var first sync.WaitGroup
	first.Go(func() {
		hs, _, err := s.find(inodes[0], func() (map[int]bool, error) {
			close(began)
			<-release
			return nil, nil // no process yet
		})
		if len(hs) > 0 || err != nil {
			t.Errorf("the first search found %d holders, %v", len(hs), err)
		}
	})
	<-began
	searches := 0
	var joined, others sync.WaitGroup
	joined.Add(waiting)
	for i := range waiting {
		others.Go(func() {
			joined.Done()
			hs, pids, err := s.find(inodes[i%2], func() (map[int]bool, error) {
				searches++
				return map[int]bool{os.Getpid(): true}, nil
			})
			for _, h := range hs {
				defer h.close()
			}
			if err != nil || len(hs) != 1 || hs[0].pid != os.Getpid() || !pids[os.Getpid()] {
				t.Errorf("lookup %d: %d holders, %v", i, len(hs), err)
			} else if to, err := readLink(hs[0].dir, "fd/"+hs[0].fd); to != socketName(inodes[i%2]) {
				t.Errorf("lookup %d: descriptor %s is %s, %v", i, hs[0].fd, to, err)
			}
		})
	}
	joined.Wait()
	for deadline := time.Now().Add(patienceOfTests); ; { // until every one waits for the next search
		s.mu.Lock()
		n := 0
		if s.next != nil {
			for _, of := range s.next.want {
				n += len(of)
			}
		}
		s.mu.Unlock()
		if n == waiting {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lookups wait for the next search", n)
		}
		runtime.Gosched()
	}
	close(release)
	first.Wait()
	others.Wait()
	if searches != 1 {
		t.Errorf("%d searches for %d lookups that waited", searches, waiting)
	}
}

// TestBypass_B39_OneLookupsFaultIsItsOwn: a socket with more holders than a lookup takes
// does not fail the lookups that share its search.
func TestBypass_B39_OneLookupsFaultIsItsOwn(t *testing.T) {
	w := &wanted{holders: make([]*holder, maxHolders)}
	w.hold(os.Getpid(), os.Getpid(), "0")
	if w.err == nil || len(w.holders) != maxHolders {
		t.Errorf("%d holders, %v", len(w.holders), w.err)
	}
	inodes := socketPair(t)
	other := &wanted{}
	look := search{want: map[string][]*wanted{socketName(inodes[0]): {w}, socketName(inodes[1]): {other}}}
	must(t, look.process(os.Getpid()))
	if other.err != nil || len(other.holders) != 1 {
		t.Errorf("the other lookup: %d holders, %v", len(other.holders), other.err)
	}
	for _, h := range other.holders {
		h.close()
	}
}
