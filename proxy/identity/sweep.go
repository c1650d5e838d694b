// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"sync"
)

// sweeps searches the container's descriptors for the holders of sockets. Each search
// reads the descriptor tables of every process, so lookups that wait for one share the
// next: otherwise a program with many connections, each of which is looked up among all
// the others, would make the work grow with the square of their number.
type sweeps struct {
	// running is held by the search that runs.
	running sync.Mutex
	mu      sync.Mutex
	// next is the search that has not begun; nil until a lookup waits for it.
	next *sweep
}

// sweep is one search for all lookups that joined before it began.
type sweep struct {
	want map[string][]*wanted
	// ended is closed when pids and err are set.
	ended chan struct{}
	pids  map[int]bool
	err   error
}

// wanted is one lookup: it asks for the holders of a socket.
type wanted struct {
	holders []*holder
	// last is the process that was found last, by its id.
	last int
	err  error
}

// find returns the processes of the container that have a descriptor of the socket, and
// the ids of all processes of the container, which list returns. It looks at each process
// after the call of find and never uses an older search. The caller closes the holders,
// also if there is an error.
func (s *sweeps) find(inode uint32, list func() (map[int]bool, error)) ([]*holder, map[int]bool, error) {
	w, name := &wanted{}, socketName(inode)
	s.mu.Lock()
	first := s.next == nil
	if first {
		s.next = &sweep{want: map[string][]*wanted{}, ended: make(chan struct{})}
	}
	mine := s.next
	mine.want[name] = append(mine.want[name], w)
	s.mu.Unlock()
	if first {
		s.running.Lock()
		s.mu.Lock()
		s.next = nil // from now on lookups wait for another search
		s.mu.Unlock()
		mine.pids, mine.err = mine.run(list)
		s.running.Unlock()
		close(mine.ended)
	}
	<-mine.ended
	if mine.err != nil {
		return w.holders, nil, mine.err
	}
	return w.holders, mine.pids, w.err
}

// run looks for all sockets of the search in all processes.
func (s *sweep) run(list func() (map[int]bool, error)) (map[int]bool, error) {
	pids, err := list()
	if err != nil {
		return nil, err
	}
	look := search{want: s.want}
	for pid := range pids {
		if err := look.process(pid); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// hold notes that a process has a descriptor of the socket. An error is kept in w, as it
// concerns this lookup alone.
func (w *wanted) hold(pid, tid int, fd string) {
	w.last = pid
	if w.err != nil {
		return
	}
	if len(w.holders) == maxHolders {
		w.err = fmt.Errorf("more than %d processes hold the socket", maxHolders)
		return
	}
	p, err := openProcess(pid, tid)
	if err != nil {
		w.err = err
		return
	}
	w.holders = append(w.holders, &holder{process: p, fd: fd})
}
