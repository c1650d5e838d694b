// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/testenv"
)

// floodSize is the number of refusals that wrote 16 MB before refusals were counted.
const floodSize = 51_000

// kept reads all files of dir, oldest first.
func kept(t *testing.T, dir string) (all []Record, size int) {
	t.Helper()
	for i := MaxFiles - 1; i >= 0; i-- {
		text := read(t, dir, name(i))
		size += len(text)
		all = append(all, logged(t, []byte(text))...)
	}
	return all, size
}

// counted returns how many refusals the records report.
func counted(t *testing.T, all []Record) (n uint64) {
	t.Helper()
	for _, r := range all {
		switch {
		case r.Verdict != Deny:
		case r.Count == 0:
			n++
		default:
			n += r.Count
			if r.First.IsZero() || r.Last.Before(r.First) || r.Time.Before(r.Last) {
				t.Errorf("counts from %v to %v at %v", r.First, r.Last, r.Time)
			}
		}
	}
	return n
}

// TestBypass_B62_RefusalFloods: however a workload varies its refusals, they do not
// displace earlier records, the first of them has a record at once, and every one is
// counted.
func TestBypass_B62_RefusalFloods(t *testing.T) {
	refusal := Record{
		Verdict: Deny, Layer: "l4", Pid: 7, Binary: "/usr/bin/curl", Digest: "sha256:" + strings.Repeat("0", 64), Ancestors: []string{"/bin/sh", "/bin/init"},
		Host: "evil.test", Port: 443, Protocol: "tls", Reason: "endpoint evil.test:443 is not allowed by any policy", Revision: 1, Status: 403,
	}
	for _, tc := range []struct {
		name string
		vary func(i int, r *Record)
		most int // bytes
	}{
		{"the same", func(int, *Record) {}, 16 << 10},
		{"other processes and client ports", func(i int, r *Record) {
			r.Pid, r.Reason = i, fmt.Sprintf("identify 10.0.0.2:%d → 1.2.3.4:80: no open socket", i)
		}, 16 << 10},
		{"hosts", func(i int, r *Record) { r.Host = fmt.Sprintf("h%d.evil.test", i) }, refusalBurst + 64<<10},
		{"ports", func(i int, r *Record) { r.Port = uint16(i) }, refusalBurst + 64<<10},
		{"paths", func(i int, r *Record) { r.Path = fmt.Sprintf("/%d", i) }, refusalBurst + 64<<10},
		{"programs", func(i int, r *Record) { r.Binary = fmt.Sprintf("/tmp/%d", i) }, refusalBurst + 64<<10},
		{"long paths of bytes that are escaped", func(i int, r *Record) { r.Path = fmt.Sprint(i) + strings.Repeat("\x01", 2*MaxField) }, refusalBurst + 64<<10},
		{"layers and policies", func(i int, r *Record) { r.Layer, r.Policy = fmt.Sprint("l", i%3), fmt.Sprint(i) }, refusalBurst + 64<<10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Open(dir, "box", Options{})
			if err != nil {
				t.Fatal(err)
			}
			before, allowed := Record{Verdict: Deny, Layer: "l7", Host: "first.test"}, Record{Verdict: "allow", Host: "good.test"}
			l.Record(before)
			for i := range floodSize {
				r := refusal
				tc.vary(i, &r)
				l.Record(r)
				if i%1000 == 0 {
					l.Record(allowed)
				}
			}
			if n := len(l.folder.kinds) + len(l.folder.rest); n > maxKinds+maxGroups+3 {
				t.Errorf("%d kinds and groups are kept", n)
			}
			if got := l.Totals(); got != (Totals{Allow: floodSize / 1000, Deny: floodSize + 1}) {
				t.Errorf("totals %+v", got)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			all, size := kept(t, dir)
			if size > tc.most {
				t.Errorf("%d bytes, want %d at most", size, tc.most)
			}
			dropped := complete(t, all)
			good := 0
			for _, r := range all {
				if r.Verdict == "allow" {
					good++
				}
			}
			if dropped == 0 && good != floodSize/1000 || counted(t, all)+uint64(good)+dropped < floodSize+1+floodSize/1000 {
				t.Errorf("%d refusals are told of, %d allowed, %d dropped", counted(t, all), good, dropped)
			}
			if all[0].Host != "first.test" || all[1].Host == "" || all[1].Count != 0 || tc.name == "the same" && all[ownRecords].Count != 0 || all[1].Pid != refusal.Pid && tc.name == "the same" {
				t.Errorf("begins with %+v and %+v", all[0], all[1])
			}
		})
	}
}

// TestRefusalRecordsLast checks that the constants keep the promise in their comments.
func TestRefusalRecordsLast(t *testing.T) {
	if lasts := time.Duration(((MaxFiles-1)*MaxBytes-refusalBurst)/refusalRate) * time.Second; lasts < 48*time.Hour {
		t.Errorf("a flood of refusals fills the files in %v", lasts)
	}
	now := time.Now()
	b := newBudget(refusalBurst, refusalRate, now)
	b.left = 0
	taken := int64(0)
	for i := range 24 * 3600 * 10 { // ten per second for one day
		if now := now.Add(time.Duration(i) * 100 * time.Millisecond); b.take(now, 100, 0) {
			taken += 100
		}
	}
	if most := int64(24 * 3600 * refusalRate); taken > most || taken < most*9/10 {
		t.Errorf("%d bytes in a day, want %d", taken, most)
	}
	if b.take(now.Add(-time.Hour), refusalBurst, 0) || !b.take(now.Add(math.MaxInt64), refusalBurst, 0) || b.left != 0 {
		t.Errorf("%d bytes left", b.left)
	}
}

// A count is written without a further record, a kind without new refusals is removed, and
// then no timer of the log runs.
func TestCountsComeByThemselves(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.interval = time.Millisecond
	l.mu.Unlock()
	const n = ownRecords + 3
	for range n {
		l.Record(Record{Verdict: Deny, Host: "a.test", Pid: 7, Revision: 2})
	}
	var quiet bool
	var all []Record
	if !testenv.Eventually(20*time.Second, func() bool {
		l.mu.Lock()
		quiet = !l.ticking
		l.mu.Unlock()
		all, _ = kept(t, dir)
		return quiet && counted(t, all) == n
	}) {
		t.Fatalf("quiet %v, records %+v", quiet, all)
	}
	last := all[len(all)-1]
	if last.Host != "a.test" || last.Revision != 2 || last.Count == 0 && len(all) < n || last.Count != 0 && last.Pid != 0 {
		t.Errorf("ends with %+v", last)
	}
	l.Record(Record{Verdict: Deny, Host: "a.test"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if all, _ := kept(t, dir); all[len(all)-1].Count != 0 || counted(t, all) != n+1 {
		t.Errorf("after a pause: %+v", all)
	}
}

// If the queue has no room for the first refusal of a kind, later ones are not counted as
// its repetitions.
func TestDroppedFirstIsNoFirst(t *testing.T) {
	s := &slow{gate: make(chan struct{})}
	l := start("box", s)
	l.Record(Record{Verdict: "allow"})
	if !testenv.Eventually(20*time.Second, s.waits.Load) { // until then the queue is read
		t.Fatal("nothing is written")
	}
	for range 2 * MaxQueue {
		l.Record(Record{Verdict: "allow"})
	}
	l.Record(Record{Verdict: Deny, Host: "a.test"})
	l.mu.Lock()
	kinds := len(l.folder.kinds)
	l.mu.Unlock()
	if kinds != 0 {
		t.Error("the dropped refusal is known")
	}
	l.fold() // the queue is full
	close(s.gate)
	if !testenv.Eventually(20*time.Second, func() bool { return len(l.queue) < cap(l.queue) }) {
		t.Fatal("the queue is not read")
	}
	l.Record(Record{Verdict: Deny, Host: "a.test"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := logged(t, s.Bytes())
	dropped := complete(t, all)
	if counted(t, all) != 1 || dropped == 0 {
		t.Errorf("%d refusals, %d dropped", counted(t, all), dropped)
	}
}

// TestBypass_B62_FirstRecordsStay: the records of what a sandbox did first survive any
// number of later records.
func TestBypass_B62_FirstRecordsStay(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, "box", Options{MaxBytes: 20_000, MaxFiles: MaxFiles})
	if err != nil {
		t.Fatal(err)
	}
	l.Record(Record{Verdict: Deny, Host: "first.test"})
	for range 20 * MaxQueue {
		l.Record(Record{Verdict: "allow", Path: "/" + strings.Repeat("a", 200)})
	}
	l.Record(Record{Verdict: Deny, Host: "last.test"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, name(MaxFiles-1))); err != nil {
		t.Fatal(err)
	}
	all, _ := kept(t, dir)
	if all[0].Host != "first.test" || all[0].Seq != 1 {
		t.Errorf("begins with %+v", all[0])
	}
}

// TestBypass_B62_NewPlaces: a flood of refusals at one host does not hide the first refusal
// of another host, port, program or layer, however long it lasts. A flood of hosts is
// bounded.
func TestBypass_B62_NewPlaces(t *testing.T) {
	now := time.Now()
	f := newFolder(now)
	flood := Record{Verdict: Deny, Layer: "l7", Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, Reason: "no rule allows it"}
	written := int64(0)
	put := func(r Record) bool {
		written += cost(&r)
		return true
	}
	own := 0
	for second := range 300 {
		now = now.Add(time.Second)
		for i := range 40 {
			r := flood
			r.Time, r.Path = now, fmt.Sprintf("/%d/%d", second, i%20)
			if second > 30 { // from here on the same kinds, so that each has a count to write
				r.Path = fmt.Sprintf("/30/%d", i)
			}
			if f.first(&r) {
				own++
			}
		}
		if second%10 == 9 {
			f.due(now, false, put)
		}
	}
	if own > 300*40/2 {
		t.Errorf("the flood has no effect: %d of its refusals have records", own)
	}
	for _, vary := range []func(r *Record){
		func(r *Record) { r.Host = "evil.example" },
		func(r *Record) { r.Port = 22 },
		func(r *Record) { r.Binary = "/usr/bin/evil" },
		func(r *Record) { r.Layer = "l4" },
	} {
		r := flood
		r.Time = now
		vary(&r)
		if !f.first(&r) {
			t.Errorf("the first refusal has no record: %+v", r)
		}
		r.Path = "/another"
		if f.first(&r) {
			t.Errorf("another path has a record, so the flood has no effect: %+v", r)
		}
	}
	recorded := 0
	for i := range floodSize {
		r := flood
		r.Time, r.Host = now, fmt.Sprintf("h%d.example", i)
		if f.first(&r) {
			recorded++
		}
	}
	if recorded < placeKinds/2 || len(f.kinds) > maxKinds || len(f.places) > maxKinds {
		t.Errorf("of a flood of hosts %d have records; %d kinds and %d places are kept", recorded, len(f.kinds), len(f.places))
	}
	for range 3 {
		now = now.Add(foldInterval)
		f.due(now, true, put)
	}
	if !f.empty() || len(f.places) != 0 {
		t.Errorf("%d kinds and %d places are kept", len(f.kinds), len(f.places))
	}
}

// TestKinds: refusals that differ in an address, or in the position of a number, are of
// different kinds.
func TestKinds(t *testing.T) {
	f := newFolder(time.Now())
	ids := map[uint64]Record{}
	for _, r := range []Record{
		{},
		{Port: 256},
		{Line: 1},
		{Line: 256},
		{Revision: 1},
		{Status: 1},
		{Address: "10.0.0.1"},
		{Address: "10.0.0.2"},
		{Host: "10.0.0.1"},
	} {
		id := f.kindOf(&r)
		if other, ok := ids[id]; ok {
			t.Errorf("%+v and %+v are of one kind", r, other)
		}
		ids[id] = r
		if l := likeness(&r); f.kindOf(&l) != id {
			t.Errorf("%+v is not like itself", r)
		}
	}
}
