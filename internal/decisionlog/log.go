// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"fmt"
	"sync"
	"time"
)

// Options are the limits of a log. In each field the zero value means the default.
type Options struct {
	// MaxBytes is the largest size of one file in bytes. The default is the constant
	// MaxBytes; Open fails if it is negative.
	MaxBytes int64
	// MaxFiles is the number of files to keep. The default is the constant MaxFiles; Open
	// fails if it is less than 2.
	MaxFiles int
}

// Log writes decisions. It is safe for concurrent use.
type Log struct {
	container string
	ended     chan struct{}

	mu      sync.Mutex
	queue   chan Record // sent to and closed under mu
	closed  bool
	seq     uint64
	dropped uint64 // since the last record that was queued
	totals  Totals
	folder  folder
	// tick calls fold after interval. ticking is true while it is set.
	tick     *time.Timer
	ticking  bool
	interval time.Duration

	// Only run uses the remaining fields.
	files store
	batch []byte
	lines []line
	lost  uint64 // since the last record that was written
	err   error  // the reason of lost
}

// Totals counts the decisions that a Log was given, with or without records of their own.
type Totals struct{ Allow, Audit, Deny, Failed uint64 }

// store is the destination of lines. write returns the number of bytes that were written.
type store interface {
	write(lines []byte) (int, error)
	close() error
}

// line is a record in the batch: the offset of its end, and the number of records that are
// lost if it cannot be written.
type line struct {
	end    int
	weight uint64
}

// Open opens the log in dir, which it creates if necessary, and appends to the records
// there.
func Open(dir, container string, o Options) (*Log, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = MaxBytes
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = MaxFiles
	}
	if o.MaxBytes < 0 || o.MaxFiles < 2 {
		return nil, fmt.Errorf("open the log of decisions: %d bytes in %d files: give at least two files", o.MaxBytes, o.MaxFiles)
	}
	f, err := openFiles(dir, o.MaxBytes, o.MaxFiles)
	if err != nil {
		return nil, err
	}
	return start(container, f), nil
}

func start(container string, s store) *Log {
	l := &Log{
		container: container, files: s, queue: make(chan Record, MaxQueue), ended: make(chan struct{}),
		folder: newFolder(time.Now()), interval: foldInterval,
	}
	l.tick = time.AfterFunc(time.Hour, l.fold)
	l.tick.Stop()
	go l.run()
	return l
}

// Record queues r for writing. It sets Seq, Container and Dropped, and Time if it is zero.
// It never blocks: if the queue is full, it counts the record instead. It also counts a
// refusal whose kind already has its records; see folder.
func (l *Log) Record(r Record) {
	r.Container = l.container
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r.Time = r.Time.UTC()
	r.clip()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.totals.add(r.Verdict)
	if r.Verdict != Deny {
		l.put(r)
		return
	}
	if l.folder.first(&r) && !l.put(r) {
		l.folder.forget(&r)
	}
	if !l.ticking {
		l.ticking = true
		l.tick.Reset(l.interval)
	}
}

// put queues r and returns true, or counts r as dropped. The caller holds mu.
func (l *Log) put(r Record) bool {
	l.seq++
	r.Container, r.Seq, r.Dropped = l.container, l.seq, l.dropped
	select {
	case l.queue <- r:
		l.dropped = 0
		return true
	default:
		l.dropped++
		return false
	}
}

// fold queues records of the counted refusals. It sets tick again if a kind of refusal is
// known.
func (l *Log) fold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.folder.due(time.Now().UTC(), false, func(r Record) bool {
		return len(l.queue) < cap(l.queue) && l.put(r) // otherwise it stays counted
	})
	if l.ticking = !l.folder.empty(); l.ticking {
		l.tick.Reset(l.interval)
	}
}

// Totals returns the number of decisions so far.
func (l *Log) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals
}

func (t *Totals) add(verdict string) {
	switch verdict {
	case Deny:
		t.Deny++
	case "audit":
		t.Audit++
	case Failed:
		t.Failed++
	default:
		t.Allow++
	}
}

// Close writes the queued records. The error says how many records are missing from the
// files for a reason other than a full queue.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.tick.Stop()
	close(l.queue)
	l.mu.Unlock()
	<-l.ended
	err := l.files.close()
	if l.lost > 0 {
		return fmt.Errorf("%d decisions are not logged: %w", l.lost, l.err)
	}
	return err
}

func (l *Log) run() {
	defer close(l.ended)
	for r := range l.queue {
		l.add(r)
		l.gather()
		l.flush()
		l.note()
		if len(l.queue) < crowded {
			time.Sleep(pace)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.folder.due(time.Now().UTC(), true, func(r Record) bool {
		l.seq++
		r.Container, r.Seq, r.Dropped = l.container, l.seq, l.dropped
		l.dropped = 0
		l.add(r)
		return true
	})
	l.flush()
	if l.lost > 0 {
		l.add(l.missing())
		l.flush()
	}
}

// gather adds the waiting records to the batch, so that a flood needs few writes.
func (l *Log) gather() {
	for len(l.batch) < maxBatch {
		select {
		case r, ok := <-l.queue:
			if !ok {
				return
			}
			l.add(r)
		default:
			return
		}
	}
}

// note writes a record about dropped records, if no later record reports them.
func (l *Log) note() {
	l.mu.Lock()
	if l.dropped == 0 || len(l.queue) > 0 {
		l.mu.Unlock()
		return
	}
	r := l.missing()
	l.mu.Unlock()
	l.add(r)
	l.flush()
}

// missing returns a record that only reports dropped records. The caller holds mu.
func (l *Log) missing() Record {
	l.seq++
	r := Record{Time: time.Now().UTC(), Seq: l.seq, Container: l.container, Dropped: l.dropped}
	r.clip()
	l.dropped = 0
	return r
}

func (l *Log) add(r Record) {
	r.Dropped += l.lost
	l.lost = 0
	batch, err := AppendLine(l.batch, &r)
	if err != nil {
		l.lost, l.err = r.Dropped+1, err
		return
	}
	l.batch = batch
	l.lines = append(l.lines, line{len(batch), r.Dropped + 1})
}

func (l *Log) flush() {
	if len(l.batch) > 0 {
		if n, err := l.files.write(l.batch); err != nil {
			l.err = err
			for _, line := range l.lines {
				if line.end > n {
					l.lost += line.weight
				}
			}
		}
	}
	l.batch, l.lines = l.batch[:0], l.lines[:0]
}
