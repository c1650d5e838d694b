// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// part is a part of an answer: bytes first to last, the last one included.
type part struct {
	first, last int64
	// length is that of the whole answer, 0 if it is not known.
	length int64
	// tail is true for the last bytes of an answer: last is their number, and first is not
	// known.
	tail bool
}

// rangeFields are the header fields that ask for a part: of RFC 9110, of browsers before
// it, and of Azure.
var rangeFields = []string{"Range", "Request-Range", "X-Ms-Range"}

// limitRange removes the range fields from h if a value could be read piece by piece with
// them; the answer is then whole. Otherwise it returns the part that is asked for, nil if
// there is none.
func limitRange(method string, h http.Header) *part {
	reads := method == http.MethodGet || method == http.MethodHead
	var values []string
	for _, name := range rangeFields {
		if reads || name == "Range" {
			values = append(values, h[name]...)
		}
	}
	if len(values) == 0 {
		return nil
	}
	if p, ok := parseRange(values[0]); ok && reads && len(values) == 1 && len(h["Request-Range"]) == 0 {
		return &p
	}
	for _, name := range rangeFields {
		if reads || name == "Range" {
			delete(h, name)
		}
	}
	delete(h, "If-Range")
	return nil
}

// parseRange parses the value of Range. ok is true if it asks for one part that shows
// little of a value, because it has MinPart bytes or one cut only.
func parseRange(v string) (p part, ok bool) {
	unit, spec, ok := strings.Cut(strings.TrimSpace(v), "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return p, false
	}
	from, to, ok := strings.Cut(spec, "-")
	if !ok {
		return p, false
	}
	if from == "" {
		p.tail = true
		p.last, ok = number(to)
		return p, ok && p.last > 0
	}
	if p.first, ok = number(from); !ok {
		return p, false
	}
	if p.last = math.MaxInt64; to == "" {
		return p, true
	}
	p.last, ok = number(to)
	return p, ok && p.last >= p.first && (p.first == 0 || p.last-p.first >= MinPart-1)
}

// number parses a number of digits alone.
func number(s string) (int64, bool) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// answer returns the part in an answer with the header h. It must be the part that was
// asked for, and may end sooner.
func (p *part) answer(h http.Header) (got part, err error) {
	if p == nil {
		return got, errors.New("it is a part, and none was asked for")
	}
	values := h["Content-Range"]
	if len(values) != 1 {
		return got, errors.New("it does not say which part it is")
	}
	spec, ok := strings.CutPrefix(values[0], "bytes ")
	span, length, ok2 := strings.Cut(spec, "/")
	from, to, ok3 := strings.Cut(span, "-")
	var oks [3]bool
	got.first, oks[0] = number(from)
	got.last, oks[1] = number(to)
	if oks[2] = length == "*"; !oks[2] {
		got.length, oks[2] = number(length)
	}
	switch {
	case !ok || !ok2 || !ok3 || oks != [3]bool{true, true, true} || got.last < got.first:
		return got, errors.New("its Content-Range cannot be read")
	case p.tail && (!got.toEnd() || got.first != max(0, got.length-p.last)),
		!p.tail && (got.first != p.first || got.last > p.last):
		return got, errors.New("it is another part than was asked for")
	case !got.toEnd() && got.first > 0 && got.last-got.first < MinPart-1:
		return got, errors.New("it is shorter than the part that was asked for")
	}
	return got, nil
}

// ofBytes reports whether an answer says that it is a part of a file's bytes. APIs also
// give pages of records in answers of status 206, with another unit or none.
func ofBytes(h http.Header) bool {
	begins := func(values []string, prefix string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(strings.ToLower(strings.TrimSpace(v)), prefix) })
	}
	return begins(h["Content-Range"], "bytes") || begins(h["Content-Type"], "multipart/byteranges")
}

// toEnd reports whether the part reaches to the end of the answer.
func (p *part) toEnd() bool { return p.length > 0 && p.last == p.length-1 }
