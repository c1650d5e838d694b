// SPDX-License-Identifier: Apache-2.0

package credentials

import "io"

// scanner passes a body on as it comes and ends it with an error before the last
// byte of a marker. Nothing is held back: half a marker means nothing to anybody,
// and a message that waited for its last bytes could wait for ever.
type scanner struct {
	src    io.Reader
	refuse func() error
	// tail is the end of what was passed on, if a marker may have begun in it.
	tail  [maxMarker]byte
	tails int
	err   error
}

func (s *scanner) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.src.Read(p)
	if pass, ok := s.pass(p[:n]); !ok {
		s.err = s.refuse()
		return pass, s.err
	}
	s.err = err
	return n, err
}

// neutral is in no marker, and is an ordinary character in JSON.
const neutral = '_'

// pass says how much of b, which follows what was passed before, may leave. False
// means that a marker ends behind that.
func (s *scanner) pass(b []byte) (int, bool) {
	if len(b) == 0 {
		return 0, true
	}
	if s.tails > 0 {
		var joint [2 * maxMarker]byte
		tail := s.tails
		n := copy(joint[:], s.tail[:tail])
		n += copy(joint[n:], b[:min(len(b), maxMarker)])
		m, ok, safe := findMarker(joint[:n], 0, false)
		if ok && m.start < tail {
			return m.end - 1 - tail, false
		}
		s.tails = 0
		if !ok && safe < tail { // b is short, and all of it may be in the marker
			s.tails = copy(s.tail[:], joint[safe:n])
			return len(b), true
		}
	}
	m, ok, safe := findMarker(b, 0, false)
	if ok {
		return m.end - 1, false
	}
	s.tails = copy(s.tail[:], b[safe:])
	return len(b), true
}

// scan says whether a whole text holds a marker.
func scan(b []byte) bool {
	_, ok, _ := findMarker(b, 0, true)
	return ok
}
