// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"cmp"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Rewritten is a request as it is sent upstream.
type Rewritten struct {
	opaque

	Path, Query string
	Header      http.Header
	// Body ends with a Refusal, before the bytes that would complete it, if a
	// placeholder turns up in it that cannot be resolved.
	Body io.Reader
	// Length is the body's, or -1 if it is not known.
	Length int64

	r     *resolver
	scrub *scrubber
	// strict is true at an endpoint of a provider: an answer that cannot be searched is
	// refused. With unsearched no answer is searched.
	strict, unsearched bool
	part               *part // the part of the answer that is asked for; nil is all of it
}

// Used are the keys whose values were put in, sorted. A body that is still being
// read may add some.
func (r *Rewritten) Used() []string { return r.r.keys(&r.r.used) }

// Passed returns the keys of the placeholders that passed unchanged in the body, sorted. A
// body that is still being read may add some.
func (r *Rewritten) Passed() []string { return r.r.keys(&r.r.passed) }

// Request is the request with its placeholders resolved and without foreign
// credentials. path is in origin form as it was judged, query without its question
// mark. The length is -1 where it is not known. h is not changed.
func (s *Set) Request(t Target, o Options, path, query string, h http.Header, contentType string, length int64, body io.Reader) (*Rewritten, error) {
	if t.Path == "" {
		t.Path = path
	}
	r := &resolver{set: s, to: t, noValues: o.NoValues, hold: o.Hold}
	out := &Rewritten{Header: make(http.Header, len(h)), r: r, scrub: s.scrub, strict: s.Needed(t), unsearched: o.AllowUnsearched}
	for k, v := range h {
		out.Header[k] = v // changed as a whole, never in place
	}
	if o.Signed {
		query = dropSignature(query, out.Header)
	}
	err := s.refuseForeign(t, query, out.Header)
	if err != nil {
		return nil, err
	}
	if out.Path, err = r.text(path, inPath); err != nil {
		return nil, err
	}
	if out.Query, err = r.text(query, inQuery); err != nil {
		return nil, err
	}
	for name, values := range out.Header {
		for i, v := range values {
			if len(v) < len(Marker) {
				continue
			}
			now, err := r.header(name, v)
			if err != nil {
				return nil, err
			}
			if now != v {
				values = slices.Clone(values)
				values[i] = now
				out.Header[name] = values
			}
		}
	}
	if out.scrub != nil && !out.unsearched {
		out.part = limitRange(cmp.Or(o.Method, http.MethodGet), out.Header)
		out.acceptSearchable()
	}
	encoding := strings.Join(h["Content-Encoding"], ",")
	out.Body, out.Length, err = r.body(o, contentType, encoding, length, body)
	return out, err
}

// acceptSearchable asks for an answer that can be searched for echoed values, at an
// endpoint of a provider for an uncompressed one, in which they can be masked.
func (r *Rewritten) acceptSearchable() {
	accept := strings.Join(r.Header["Accept-Encoding"], ",")
	if accept == "" && !r.strict {
		return
	}
	kept := []string{"identity"}
	if !r.strict {
		kept = slices.DeleteFunc(strings.Split(accept, ","), func(item string) bool {
			coding, _, _ := strings.Cut(item, ";")
			coding = strings.ToLower(strings.TrimSpace(coding))
			return coding != "identity" && contentCodings[coding].open == nil
		})
		if len(kept) == 0 {
			kept = []string{"identity"}
		}
	}
	if all := strings.Join(kept, ","); all != accept {
		r.Header["Accept-Encoding"] = []string{all}
	}
}

// Trailer checks a request's trailers, which carry no credentials.
func (r *Rewritten) Trailer(h http.Header) error {
	for name, values := range h {
		for _, v := range values {
			if scan([]byte(v)) || hidden(v) {
				return r.r.refuse("trailer "+name, "trailers are not rewritten")
			}
		}
	}
	return nil
}
