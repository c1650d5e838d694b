// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// pruneInterval is the time between two runs of PruneDue. A run looks at each log, which
// takes about 50 µs per log.
const pruneInterval = time.Hour

// pruneStamp is a file in the folder of all logs. Its modification time is the time of the
// last PruneDue. The ID of a container never contains an at sign.
const pruneStamp = "@pruned"

// Limits are the limits for the logs of sandboxes that have ended.
type Limits struct {
	// MaxAge is how long a log is kept after the end of its sandbox. 0 means no limit.
	MaxAge time.Duration
	// MaxBytes is the largest size of all logs together in bytes. 0 means no limit. The
	// logs of running sandboxes count, but are not removed.
	MaxBytes int64
}

// Pruned is a log that was removed.
type Pruned struct {
	ID    string `json:"id"`
	Bytes int64  `json:"bytes"`
	// Ended is the time when its sandbox ended. If the sandbox was killed, it is the time
	// of its last record.
	Ended time.Time `json:"ended"`
}

// PruneDue calls Prune, unless it was called within the last hour.
func PruneDue(top string, l Limits) error {
	stamp := filepath.Join(top, pruneStamp)
	now := time.Now()
	if st, err := os.Stat(stamp); err == nil && now.Sub(st.ModTime()).Abs() < pruneInterval {
		return nil
	}
	err := os.WriteFile(stamp, nil, 0o600)
	if err == nil {
		err = os.Chtimes(stamp, now, now)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there are no logs
	}
	if err != nil {
		return fmt.Errorf("prune logs: %w", err)
	}
	_, err = Prune(top, l)
	return err
}

// Prune removes logs below top of sandboxes that have ended: first those older than
// l.MaxAge, then the oldest ones until all logs together have at most l.MaxBytes. It
// ignores folders that are not logs. If a log cannot be removed, it continues with the
// others and returns an error.
func Prune(top string, l Limits) (removed []Pruned, err error) {
	root, err := os.OpenRoot(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("prune logs: %w", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("prune logs: %w", err)
	}
	var logs []Pruned
	var total int64
	for _, e := range entries {
		if p, ok := measure(root, e.Name()); ok && e.IsDir() {
			logs, total = append(logs, p), total+p.Bytes
		}
	}
	slices.SortFunc(logs, func(a, b Pruned) int { return a.Ended.Compare(b.Ended) })
	var failed []error
	for _, p := range logs {
		old := l.MaxAge > 0 && time.Since(p.Ended) > l.MaxAge
		if !old && (l.MaxBytes == 0 || total <= l.MaxBytes) {
			continue
		}
		gone, err := remove(root, p)
		if err != nil {
			failed = append(failed, err)
		}
		if gone {
			removed, total = append(removed, p), total-p.Bytes
		}
	}
	return removed, errors.Join(failed...)
}

// logFile matches the names of a log's files.
var logFile = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(` + regexp.QuoteMeta(FileName) + `(\.[0-9]+)?|` + regexp.QuoteMeta(ProxyFileName) + `)$`)
})

// measure returns the size and the end time of the log in the folder name. It returns false
// if the folder has no file FileName, or has files that are not part of a log.
func measure(root *os.Root, name string) (p Pruned, ok bool) {
	st, err := root.Stat(name)
	if err != nil || !st.IsDir() || strings.HasPrefix(name, "@") {
		return p, false
	}
	p = Pruned{ID: name, Ended: st.ModTime()}
	files, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return p, false
	}
	for _, f := range files {
		st, err := f.Info()
		if err != nil || !st.Mode().IsRegular() || !logFile().MatchString(f.Name()) {
			return p, false
		}
		ok = ok || f.Name() == FileName
		p.Bytes += st.Size()
		if st.ModTime().After(p.Ended) {
			p.Ended = st.ModTime()
		}
	}
	return p, ok
}

// remove removes a log, unless a running sandbox holds it or it has changed since measure.
func remove(root *os.Root, p Pruned) (gone bool, err error) {
	f, err := root.Open(p.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another Prune was faster
	}
	if err != nil {
		return false, fmt.Errorf("prune the log of %s: %w", p.ID, err)
	}
	defer f.Close()
	if !tryLock(f) {
		return false, nil
	}
	if now, ok := measure(root, p.ID); !ok || !now.Ended.Equal(p.Ended) {
		return false, nil
	}
	files, err := fs.ReadDir(root.FS(), p.ID)
	// FileName comes first and is removed last: without it, the rest is not recognized as a
	// log.
	for _, e := range slices.Backward(files) {
		if err == nil {
			err = root.Remove(filepath.Join(p.ID, e.Name()))
		}
	}
	if err == nil {
		err = root.Remove(p.ID)
	}
	if err != nil {
		return false, fmt.Errorf("prune the log of %s: %w", p.ID, err)
	}
	return true, nil
}
