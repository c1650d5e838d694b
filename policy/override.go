// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// MaxOverrides is the largest number of overrides of one request. Each combination of a
// method and a path is judged, and clients send one override.
const MaxOverrides = 8

// Override is a header or query parameter that some servers use as the method or path of a
// request.
type Override struct {
	// Source names the header or the parameter.
	Source string
	// Method replaces the method of the request. If it is empty, Path and RawQuery replace
	// its path and query.
	Method, Path, RawQuery string
}

// Overrides returns the overrides in the header and the query of a request. It fails if
// servers could read a value in different ways, or if there are more than [MaxOverrides].
// allowEncodedSlash is the argument of [CanonicalPath].
func Overrides(header map[string][]string, h *HTTP, allowEncodedSlash bool) ([]Override, error) {
	o := overrides{request: h, encodedSlash: allowEncodedSlash}
	for name, values := range header {
		for _, v := range values {
			o.header(name, v)
		}
	}
	o.query(h.RawQuery)
	if o.err == nil && len(o.found) > MaxOverrides {
		o.err = fmt.Errorf("more than %d headers and parameters that override the method or the path, the last %s", MaxOverrides, o.found[MaxOverrides].Source)
	}
	return o.found, o.err
}

// overrides collects the overrides of one request.
type overrides struct {
	request      *HTTP
	encodedSlash bool
	found        []Override
	err          error
}

// header adds the override in a header field, if the field is one. Some servers replace
// every byte of a field name that is neither a letter nor a digit by _, so header treats
// all these bytes as equal.
func (o *overrides) header(name, value string) {
	var buf [len("x-http-method-override")]byte
	if len(name) > len(buf) {
		return
	}
	folded := buf[:len(name)]
	for i := range len(name) {
		if folded[i] = '-'; alnum(name[i]) {
			folded[i] = foldName(name[i])
		}
	}
	switch string(folded) {
	case "x-http-method-override", "x-http-method", "x-method-override", "x-forwarded-method", "x-original-method":
		o.method("header "+name, value)
	case "x-original-url", "x-original-uri", "x-rewrite-url", "x-rewrite-uri", "x-override-url", "x-forwarded-uri", "x-forwarded-path":
		o.path("header "+name, value)
	case "destination": // of WebDAV, where the request writes
		if m := o.request.Method; equalUpper("COPY", m) || equalUpper("MOVE", m) {
			o.path("header "+name, value)
		}
	}
}

// methodParameters are the query parameters that override the method in many frameworks, at
// Salesforce and at Google. headersParameter contains whole header fields, at Google.
var (
	methodParameters = []queryRule{{key: "_method"}, {key: "_HttpMethod"}, {key: "$httpMethod"}, {key: "X-HTTP-Method-Override"}, {key: "X-Method-Override"}}
	headersParameter = queryRule{key: "$httpHeaders"}
)

func (o *overrides) query(query string) {
	for pair := range strings.SplitSeq(query, "&") {
		for part := range parts(pair) {
			name, value, _ := strings.Cut(part, "=")
			for i := range methodParameters {
				if p := &methodParameters[i]; eachDecoding(name, p.names) {
					o.method("query parameter "+p.key, unescapeQuery(value))
				}
			}
			if eachDecoding(name, headersParameter.names) {
				o.headers("query parameter "+headersParameter.key, unescapeQuery(value))
			}
		}
	}
}

// headers adds the header fields in the value of headersParameter, one per line. A line
// that may continue the previous one is an error.
func (o *overrides) headers(source, lines string) {
	for line := range strings.FieldsFuncSeq(lines, func(r rune) bool { return r == '\r' || r == '\n' }) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != name {
			o.fail(source, fmt.Errorf("line %.64q is not a header field", line))
			return
		}
		o.header(name, value)
	}
}

// method adds a method. An empty one overrides nothing.
func (o *overrides) method(source, value string) {
	value = strings.ToUpper(strings.TrimSpace(value))
	switch {
	case value == "":
	case strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "":
		o.fail(source, fmt.Errorf("%.64q is not one method (want letters, - and _)", value))
	default:
		o.found = append(o.found, Override{Source: source, Method: value})
	}
}

// path adds a path, or the path of a URL. It adds the path once with its own query and once
// with the request's, because servers differ.
func (o *overrides) path(source, value string) {
	value = strings.TrimSpace(value)
	if scheme, rest, ok := strings.Cut(value, "://"); ok && !strings.ContainsAny(scheme, "/?") {
		value = "/"
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			value = rest[i:]
		}
	}
	raw, query, _ := strings.Cut(value, "?")
	path, err := CanonicalPath(raw, o.encodedSlash)
	switch {
	case err != nil:
		o.fail(source, err)
		return
	case strings.HasPrefix(raw, "//"):
		o.fail(source, fmt.Errorf("path %.64q begins with //", raw))
		return
	case strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }):
		o.fail(source, fmt.Errorf("query %.64q has a byte that must be percent-encoded", query))
		return
	}
	o.found = append(o.found, Override{Source: source, Path: path, RawQuery: query})
	if own := o.request.RawQuery; own != query {
		o.found = append(o.found, Override{Source: source, Path: path, RawQuery: own})
	}
}

// fail keeps only the first error: the workload controls how many there are.
func (o *overrides) fail(source string, err error) {
	if o.err == nil {
		o.err = fmt.Errorf("%s: %w", source, err)
	}
}

// eachOverridden yields the requests, other than h itself, that a server may read from h,
// each with the names of the headers and parameters that cause it.
func (h *HTTP) eachOverridden(yield func(asked *HTTP, source string) bool) {
	whole := [...]Override{{Method: h.Method, Path: h.Path, RawQuery: h.RawQuery}}
	all := append(whole[:], h.Overrides...)
	for i := range all {
		for j := range all {
			method, path := &all[i], &all[j]
			if i == 0 && j == 0 || i > 0 && method.Method == "" || j > 0 && path.Method != "" {
				continue
			}
			source := method.Source
			if source != "" && path.Source != "" {
				source += " and "
			}
			asked := HTTP{Method: method.Method, Path: path.Path, RawQuery: path.RawQuery, WebSocket: h.WebSocket}
			if !yield(&asked, source+path.Source) {
				return
			}
		}
	}
}
