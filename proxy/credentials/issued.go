// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"io"
	"maps"
	"slices"
	"strings"
)

// issuedKeys returns the keys, as placeholders name them, of the credentials that the
// sandbox has, sorted.
func issuedKeys(providers []*provider) (keys []string) {
	for _, p := range providers {
		if p.Gone == "" {
			keys = slices.AppendSeq(keys, maps.Keys(p.newest))
			keys = slices.AppendSeq(keys, maps.Keys(p.exact))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// issuedReader passes a body on as it comes, with the placeholders in it that the sandbox
// was given: a placeholder is a name, not a secret. It ends with an error before the last
// byte of the marker of any other placeholder. Only the bytes of an unfinished key wait for
// the bytes that follow.
type issuedReader struct {
	src io.Reader
	r   *resolver
	// neutralize replaces the last byte of such a marker, if it is written plainly, in
	// place of the error.
	neutralize bool

	// buf holds bytes of src from a possible beginning of a placeholder on. The caller has
	// read passed bytes of buf and may read up to limit. The bytes before keep can be dropped.
	buf                 []byte
	passed, limit, keep int
	err                 error
}

func (s *issuedReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.buf) == 0 && s.err == nil {
		n, err := s.src.Read(p)
		if _, ok, safe := findMarker(p[:n], 0, false); !ok && safe == n {
			s.err = err
			return n, err
		}
		s.buf = append(s.buf, p[:n]...)
		s.judge(err)
	}
	for s.passed == s.limit {
		if s.err != nil {
			return 0, s.err
		}
		s.fill()
	}
	n := copy(p, s.buf[s.passed:s.limit])
	s.passed += n
	if drop := min(s.keep, s.passed); drop == len(s.buf) {
		s.buf, s.passed, s.limit, s.keep = s.buf[:0], 0, 0, 0
	}
	return n, nil
}

// fill reads more, in steps of at most window bytes.
func (s *issuedReader) fill() {
	drop := min(s.keep, s.passed)
	s.buf = slices.Grow(append(s.buf[:0], s.buf[drop:]...), window)
	s.passed -= drop
	n, err := s.src.Read(s.buf[len(s.buf) : len(s.buf)+window])
	s.buf = s.buf[:len(s.buf)+n]
	s.judge(err)
}

// judge sets limit and keep, and with err the end of the body.
func (s *issuedReader) judge(err error) {
	s.err, s.limit = err, len(s.buf)
	for at := 0; ; {
		m, ok, safe := findMarker(s.buf, at, err != nil)
		if !ok {
			s.keep = safe
			return
		}
		s.keep = m.start
		key, size, state := s.r.set.issuedKey(s.buf[m.end:], err != nil)
		switch state {
		case keyIssued:
			s.r.pass(parseKey(key).name)
		case keyOpen:
			s.limit = m.end + size
			return
		case keyUnfinished:
			s.limit = max(s.passed, m.end-1)
			return
		case keyUnknown:
			last := m.end - 1
			plain := s.buf[last] == Marker[len(Marker)-1] || s.buf[last] == AliasMarker[len(AliasMarker)-1]
			if !s.neutralize || !plain {
				key, _, _ = readKey(s.buf[:min(len(s.buf), m.end+MaxKey)], m.end, percent|unicode|twice, m.alias)
				s.limit, s.err = max(s.passed, last), &BodyError{Key: parseKey(key).name}
				return
			}
			if last >= s.passed {
				s.buf[last] = neutral
			}
			size = 0
		}
		at = m.end + size
	}
}

// keyState is the result of comparing the key of a placeholder with the issued keys.
type keyState int

const (
	// keyUnknown is a key that the sandbox was not given.
	keyUnknown keyState = iota
	// keyUnfinished is the beginning of an issued key.
	keyUnfinished
	// keyOpen is an issued key that is also the beginning of a longer one.
	keyOpen
	// keyIssued is an issued key.
	keyIssued
)

// issuedKey reads the key of a placeholder at the start of b, however it is escaped. size is
// its length there. With final nothing follows b.
func (s *Set) issuedKey(b []byte, final bool) (key string, size int, state keyState) {
	var out []byte
	for size < len(b) {
		c, n, _ := symbol(b, size)
		if n == 0 && !final {
			break
		}
		if n == 0 || !isKey(c) {
			final = true
			break
		}
		out = append(out, c)
		if _, begins := s.issuedAt(string(out)); !begins {
			return string(out), size, keyUnknown
		}
		size += n
	}
	switch is, _ := s.issuedAt(string(out)); {
	case is && final:
		return string(out), size, keyIssued
	case is:
		return string(out), size, keyOpen
	case !final:
		return string(out), size, keyUnfinished
	}
	return string(out), size, keyUnknown
}

// issuedAt reports whether a key was given to the sandbox, and whether one begins with it.
func (s *Set) issuedAt(key string) (is, begins bool) {
	i, is := slices.BinarySearch(s.issued, key)
	return is, i < len(s.issued) && strings.HasPrefix(s.issued[i], key)
}
