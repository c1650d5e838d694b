// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
)

// lookbehind is what a stream keeps in front of a possible marker: an alias
// token's prefix, the byte before it, and an escape that may end there.
const lookbehind = maxAliasPrefix + 8

// rewrite appends src to dst with its placeholders resolved, as far as that can be
// known; used is how much of src that was. With final it is all.
func (r *resolver) rewrite(dst, src []byte, pl *place, final bool) (out []byte, used int, err error) {
	at := 0
	for {
		m, ok, safe := findMarker(src, at, final)
		if !ok {
			cut := len(src)
			if !final {
				cut = cutBefore(src, at, safe-lookbehind)
			}
			return append(dst, src[at:cut]...), cut, nil
		}
		if m.how&twice != 0 {
			return nil, 0, &MalformedError{Where: pl.where, Reason: "it is escaped twice"}
		}
		start := m.start
		if m.alias {
			if start = aliasStart(src, at, m.start, pl.native); m.start-start > maxAliasPrefix {
				return nil, 0, &MalformedError{Where: pl.where, Reason: "the alias token is too long"}
			}
		}
		escapes := pl.native | m.how
		key, end, more := readKey(src, m.end, escapes, m.alias)
		if more && !final {
			cut := cutBefore(src, at, min(start, m.start-lookbehind))
			return append(dst, src[at:cut]...), cut, nil
		}
		if key == "" {
			return nil, 0, &MalformedError{Where: pl.where, Reason: "no key follows the marker"}
		}
		value, home, err := r.credential(key, pl.where)
		if err == nil && pl.slot != nil && !r.set.anyPlace && !pl.slot(home, src[:start], src[end:]) {
			err = &UnresolvedError{Key: parseKey(key).name, Where: pl.where, Reason: "it is not the credential's place, which is " + home.all()}
		}
		if err != nil {
			return nil, 0, err
		}
		if pl.check != nil {
			if why := pl.check(value); why != "" {
				return nil, 0, &UnresolvedError{Key: parseKey(key).name, Where: pl.where, Reason: why}
			}
		}
		dst = append(dst, src[at:start]...)
		switch {
		case m.how&percent != 0 && pl.native&percent == 0:
			dst = percentStrict(dst, value)
		case m.how&unicode != 0 && pl.native&unicode == 0:
			dst = jsonEscape(dst, value)
		default:
			dst = pl.render(dst, value)
		}
		at = end
	}
}

// cutBefore is where, at most at cut, a text can be parted without parting a run
// of backslashes, whose number decides what follows.
func cutBefore(src []byte, at, cut int) int {
	if cut <= at {
		return at
	}
	c := cut
	for c > at && src[c-1] == '\\' {
		c--
	}
	if c == at { // nothing but backslashes: an even number can go
		c += (cut - at) &^ 1
	}
	return c
}

// aliasStart is where the token begins that holds an alias marker at i. It is not
// before at, and stops just beyond maxAliasPrefix.
func aliasStart(b []byte, at, i int, native escape) int {
	s := i
	for s > at && i-s <= maxAliasPrefix && isToken(b[s-1]) {
		s--
	}
	if s == at || i-s > maxAliasPrefix {
		return s
	}
	// The token's first characters may be an escape's last.
	switch c := b[s-1]; {
	case c == '%' && native&percent != 0:
		s += 2
	case c == '\\' && native&unicode != 0:
		run := 0
		for k := s - 1; k >= at && b[k] == '\\'; k-- {
			run++
		}
		switch {
		case run%2 == 0:
		case b[s] == 'u':
			s += 5
		default:
			s++
		}
	}
	return min(s, i)
}

// text resolves the placeholders of a short text.
func (r *resolver) text(s string, pl *place) (string, error) {
	if scan([]byte(s)) {
		out, _, err := r.rewrite(nil, []byte(s), pl, true)
		if err != nil {
			return "", err
		}
		s = string(out)
	}
	if hidden(s) {
		return "", &MalformedError{Where: pl.where, Reason: "it is encoded in a way that is not resolved here"}
	}
	return s, nil
}

// header resolves the placeholders of one header value.
func (r *resolver) header(name, value string) (string, error) {
	if inner, ok := basic(value); ok {
		if scan([]byte(inner)) {
			out, _, err := r.rewrite(nil, []byte(inner), inBasic(name), true)
			if err != nil {
				return "", err
			}
			return "Basic " + base64.StdEncoding.EncodeToString(out), nil
		}
	}
	return r.text(value, inHeader(name))
}

// basic is what a Basic credential says, decoded.
func basic(value string) (string, bool) {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(value), " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return "", false
	}
	rest = strings.TrimRight(strings.TrimSpace(rest), "=")
	rest = strings.NewReplacer("-", "+", "_", "/").Replace(rest)
	out, err := base64.RawStdEncoding.DecodeString(rest)
	return string(out), err == nil
}

// hiddenMarkers are the markers in base64, for each way they can lie in it.
var hiddenMarkers = append(base64Inside(Marker), base64Inside(AliasMarker)...)

// hidden says whether a short text holds a marker in base64 or under more
// percent-encoding than is resolved.
func hidden(s string) bool {
	if len(s) < len(hiddenMarkers[0]) {
		return false
	}
	for _, m := range hiddenMarkers {
		if strings.Contains(s, m) {
			return true
		}
	}
	if !strings.Contains(s, "%25") {
		return false
	}
	plain, _ := percentDecode(s)
	return scan([]byte(plain))
}

// base64Inside is what base64 of any text that contains s contains, in both
// alphabets.
func base64Inside(s string) []string {
	var out []string
	add := func(e string) {
		for _, o := range out {
			if o == e {
				return
			}
		}
		out = append(out, e)
	}
	for lead := range 3 {
		text := make([]byte, lead, lead+len(s))
		text = append(text, s...)
		// Whole groups of six bits that hold nothing but bits of s.
		from, to := (lead*8+5)/6, len(text)*8/6
		add(base64.RawStdEncoding.EncodeToString(text)[from:to])
		add(base64.RawURLEncoding.EncodeToString(text)[from:to])
	}
	return out
}

// rewriter is a body with its placeholders resolved as it is read.
type rewriter struct {
	opaque

	r       *resolver
	src     io.Reader
	pl      *place
	in, out []byte
	ready   []byte // of out
	err     error
}

func (w *rewriter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(w.ready) == 0 {
		if w.err != nil {
			return 0, w.err
		}
		w.fill()
	}
	n := copy(p, w.ready)
	w.ready = w.ready[n:]
	return n, nil
}

func (w *rewriter) fill() {
	if w.in == nil {
		w.in = make([]byte, 0, window)
	}
	n, err := w.src.Read(w.in[len(w.in):cap(w.in)])
	w.in = w.in[:len(w.in)+n]
	end := errors.Is(err, io.EOF)
	if err != nil && !end {
		w.err = err // what came before an error is no body
		return
	}
	out, used, rerr := w.r.rewrite(w.out[:0], w.in, w.pl, end)
	if rerr != nil {
		w.err = rerr
		return
	}
	w.out, w.ready, w.err = out, out, err
	w.in = append(w.in[:0], w.in[used:]...)
}

// resolveAll is a whole body with its placeholders resolved.
func (r *resolver) resolveAll(body []byte, pl *place) ([]byte, error) {
	out, _, err := r.rewrite(make([]byte, 0, len(body)), body, pl, true)
	if err == nil && bytes.Equal(out, body) {
		return body, nil
	}
	return out, err
}
