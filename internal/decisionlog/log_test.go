// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

func logged(t *testing.T, text []byte) (all []Record) {
	t.Helper()
	for r, err := range Read(bytes.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// complete fails the test if a record is missing that no later one counts.
func complete(t *testing.T, all []Record) (dropped uint64) {
	t.Helper()
	last := uint64(0)
	for _, r := range all {
		if r.Seq != last+1+r.Dropped {
			t.Fatalf("record %d comes after %d and counts %d dropped", r.Seq, last, r.Dropped)
		}
		last = r.Seq
		dropped += r.Dropped
	}
	return dropped
}

func TestBypass_B75_OneHarmlessLine(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	nasty := []string{
		"a\nb", "a\r\nb", `","verdict":"allow"}` + "\n{", "\x1b[2J\x1b[31m", "\x9b2J", "\u009b2J", "\x00\x7f", "\xff\xfe", "\u202egpj.exe", "\u2028", "😀\u0085", "</script>&",
	}
	// The last repetition of each is counted.
	for _, s := range slices.Repeat(nasty, ownRecords+1) {
		l.Record(Record{
			Container: "other", Seq: 9, Dropped: 9, Verdict: "deny", Layer: "l7", Host: s, Path: "/" + s + "?token=SECRET#SECRET",
			Method: s, Reason: s, Binary: s, Digest: s, Ancestors: []string{s, s}, Address: s, Protocol: s, Policy: s, Rule: s,
		})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n != (ownRecords+1)*len(nasty) {
		t.Errorf("%d lines", n)
	}
	for _, b := range text {
		if b != '\n' && (b < ' ' || b > '~') {
			t.Fatalf("byte %#x in %q", b, text)
		}
	}
	if bytes.Contains(text, []byte("SECRET")) {
		t.Error("a query is in the log")
	}
	all := logged(t, text)
	first := map[string]string{}
	for _, r := range all[:len(nasty)] {
		first[r.Host] = r.Path
	}
	for _, r := range all[ownRecords*len(nasty):] {
		if path, ok := first[r.Host]; !ok || r.Path != path || r.Count != 1 || r.Container != "box" {
			t.Errorf("counted: %+v", r)
		}
	}
	for i, r := range all[:ownRecords*len(nasty)] {
		said := nasty[i%len(nasty)]
		want := strings.ToValidUTF8(said, "\ufffd")
		if said == "\xff\xfe" {
			want = "\ufffd\ufffd"
		}
		if r.Container != "box" || r.Verdict != "deny" || r.Host != want || r.Ancestors[1] != want || r.Path != "/"+want {
			t.Errorf("%q became %+v", said, r)
		}
	}
	if complete(t, all) != 0 {
		t.Error("a workload's number was kept")
	}
}

func TestBypass_B75_LongFieldsAreCut(t *testing.T) {
	ancestors := make([]string, 3*MaxAncestors)
	for i := range ancestors {
		ancestors[i] = strings.Repeat("\x01", 2*MaxField)
	}
	for name, s := range map[string]string{"ASCII": strings.Repeat("a", 1<<20), "escaped": strings.Repeat("\x01", 1<<20), "UTF-8": strings.Repeat("ü", MaxField), "four bytes": "a" + strings.Repeat("😀", MaxField)} {
		r := Record{
			Time: time.Now(), Pid: math.MaxInt32, Port: math.MaxUint16, Line: math.MaxInt32, Revision: math.MaxInt, Status: 599, BytesIn: math.MaxInt64, BytesOut: math.MaxInt64,
			DurationMS: math.MaxFloat64, Dropped: math.MaxUint64, Count: math.MaxUint64, First: time.Now(), Last: time.Now(), Seq: math.MaxUint64,
			Container: s, Verdict: s, Layer: s, Binary: s, Digest: s, Ancestors: ancestors, Host: s, Address: s, Protocol: s, Method: s, Path: s, Policy: s, Rule: s, Reason: s,
		}
		r.clip()
		text, err := AppendLine(nil, &r)
		if err != nil || len(text) > MaxLine || int64(len(text)) > cost(&r) {
			t.Fatalf("%s: %d bytes, %v", name, len(text), err)
		}
		back := logged(t, text)[0]
		if !strings.HasSuffix(back.Host, "…") || !strings.HasPrefix(s, strings.TrimSuffix(back.Host, "…")) || len(back.Host) > MaxField || len(back.Host) < MaxField-4 || len(back.Ancestors) != MaxAncestors {
			t.Errorf("%s: a host of %d bytes, %d ancestors", name, len(back.Host), len(back.Ancestors))
		}
	}
	if len(ancestors[0]) != 2*MaxField {
		t.Error("the caller's ancestors were cut")
	}
}

// slow is a store that blocks until the gate opens, and that is full at times.
type slow struct {
	bytes.Buffer
	gate chan struct{}
	room func() int
	// waits is true once a write has reached the gate.
	waits atomic.Bool
}

func (s *slow) close() error { return nil }

func (s *slow) write(b []byte) (int, error) {
	if s.gate != nil {
		s.waits.Store(true)
		<-s.gate
	}
	if s.room != nil {
		if n := s.room(); n < len(b) {
			// A torn line is ended before the next write, as in files.
			whole := bytes.LastIndexByte(b[:n], '\n') + 1
			s.Buffer.Write(b[:whole])
			return n, errors.New("no space left")
		}
	}
	return s.Buffer.Write(b)
}

func TestRecordNeverWaits(t *testing.T) {
	s := &slow{gate: make(chan struct{})}
	l := start("box", s)
	const n = 10 * MaxQueue
	done := make(chan struct{})
	go func() {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range n / 4 {
					l.Record(Record{Verdict: "allow"})
				}
			})
		}
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Record waits for the disk")
	}
	close(s.gate)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := logged(t, s.Bytes())
	dropped := complete(t, all)
	// A record without a verdict only reports a count. It is the last one, unless the queue
	// had room again.
	kept := uint64(0)
	for _, r := range all {
		if r.Verdict != "" {
			kept++
		}
	}
	if dropped == 0 || kept+dropped != n {
		t.Errorf("%d records, %d dropped of %d", kept, dropped, n)
	}
	l.Record(Record{Verdict: "allow"})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiskFull(t *testing.T) {
	var mu sync.Mutex
	writes := 0
	s := &slow{room: func() int {
		mu.Lock()
		defer mu.Unlock()
		if writes++; writes%3 == 0 {
			return 1 << 20
		}
		return 250 // one record and some of the next
	}}
	l := start("box", s)
	const n = 5000
	for i := range n {
		l.Record(Record{Verdict: "audit", Layer: "l4"})
		if i%100 == 0 {
			time.Sleep(time.Millisecond) //nolint:forbidigo // a flood that leaves the writer some time
		}
	}
	err := l.Close()
	all := logged(t, s.Bytes())
	dropped := complete(t, all)
	if dropped == 0 || len(all) == 0 {
		t.Errorf("%d records, %d dropped", len(all), dropped)
	}
	missing := l.seq - uint64(len(all)) - dropped
	if (err == nil) != (missing == 0) || err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("%d decisions are not logged", missing)) {
		t.Errorf("%d are missing: %v", missing, err)
	}
}

func TestUnencodableIsCounted(t *testing.T) {
	s := &slow{}
	l := start("box", s)
	l.Record(Record{Verdict: "deny", Time: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)})
	l.Record(Record{Verdict: "allow"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if all := logged(t, s.Bytes()); len(all) != 1 || all[0].Dropped != 1 || all[0].Seq != 2 {
		t.Errorf("%+v", all)
	}
}

func TestReadGoesOn(t *testing.T) {
	good := `{"time":"2026-01-02T03:04:05Z","seq":1,"container":"c","verdict":"deny","layer":"l4"}` + "\n"
	for name, in := range map[string]string{
		"torn": good + good[:20] + "\n" + good, "junk": good + "\x00\xff\n" + good, "no object": good + "[]\n" + good, "other object": good + "{}\n" + good, "blank": good + "\n" + good,
		"long": good + strings.Repeat("x", 3*MaxLine) + "\n" + good, "torn at the end": good + good + good[:20],
	} {
		records, failures := 0, 0
		for r, err := range Read(strings.NewReader(in)) {
			if err != nil {
				failures++
			} else if r.Verdict == "deny" {
				records++
			}
		}
		if records != 2 || failures != 1 {
			t.Errorf("%s: %d records, %d errors", name, records, failures)
		}
	}
	for range Read(strings.NewReader(good + good)) {
		break
	}
	broken := errors.New("broken")
	var last error
	for _, last = range Read(io.MultiReader(strings.NewReader(good), iotest.ErrReader(broken))) {
	}
	if !errors.Is(last, broken) {
		t.Errorf("ended with %v", last)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"seq":1,"host":"a"}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for r, err := range Read(bytes.NewReader(in)) {
			if err != nil {
				continue
			}
			r.clip()
			text, err := AppendLine(nil, &r)
			if err != nil || bytes.Count(text, []byte("\n")) != 1 || bytes.ContainsFunc(text[:len(text)-1], func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("%q: %v", text, err)
			}
			if again := logged(t, text); len(again) != 1 || again[0].Host != r.Host || again[0].Path != r.Path {
				t.Fatalf("%+v became %+v", r, again)
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(b.TempDir(), "box", Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := Record{
		Time: time.Now(), Verdict: "allow", Layer: "l7", Pid: 42, Binary: "/usr/bin/curl", Digest: strings.Repeat("0", 64), Ancestors: []string{"/bin/sh", "/usr/bin/node"},
		Host: "api.example.com", Port: 443, Protocol: "https", Method: "GET", Path: "/v1/messages", Policy: "api", Rule: "GET /v1/**", Status: 200, BytesIn: 100, BytesOut: 200, DurationMS: 1.5, Address: "192.0.2.1",
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Record(r)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAppendLine(b *testing.B) {
	r := Record{Time: time.Now(), Seq: 1, Container: "box", Verdict: "allow", Layer: "l7", Binary: "/usr/bin/curl", Host: "api.example.com", Port: 443, Protocol: "https", Method: "GET", Path: "/v1/messages", Policy: "api"}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = AppendLine(buf[:0], &r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestOneLine checks that the reason of a record is one line, also for joined errors.
func TestOneLine(t *testing.T) {
	joined := fmt.Errorf("dial: %w", errors.Join(errors.New("connection refused"), errors.New("no server answers"))).Error()
	for text, want := range map[string]string{
		"":                                     "",
		"one line: as it is":                   "one line: as it is",
		joined:                                 "dial: connection refused; no server answers",
		"unmarshal errors:\n  line 3: unknown": "unmarshal errors: line 3: unknown",
		"a\r\nb\n\nc\n":                        "a; b; c",
		"a\rb":                                 "a b",
	} {
		if got := OneLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		r := Record{Reason: text}
		if r.clip(); r.Reason != want {
			t.Errorf("record of %q: %q", text, r.Reason)
		}
	}
}
