// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// builtinPatterns are what the redactor looks for always: OpenShell's.
var builtinPatterns = []string{`sk-[A-Za-z0-9_-]{16,}`}

// redacted takes the place of what was found.
const redacted = "[REDACTED]"

// redactor is openshell/regex.
type redactor struct{ patterns []*regexp.Regexp }

func newRedactor(more []string) (*redactor, error) {
	r := &redactor{}
	for _, p := range append(builtinPatterns[:len(builtinPatterns):len(builtinPatterns)], more...) {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
		r.patterns = append(r.patterns, re)
	}
	return r, nil
}

func (r *redactor) limit() int { return MaxBody }

func (r *redactor) run(_ context.Context, req *Request, _ *call) (int, error) {
	if e := req.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return 0, codeEncoded
	}
	if !utf8.Valid(req.Body) {
		return 0, codeNotText
	}
	kind, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")) // what cannot be read is text
	body, n := "", 0
	switch {
	case kind == "application/x-www-form-urlencoded":
		body, n = r.form(string(req.Body))
	case documents(req.Body):
		body, n = r.json(string(req.Body))
	default:
		body, n = r.text(string(req.Body))
	}
	if n > 0 {
		req.Body = []byte(body)
	}
	return n, nil
}

// text replaces what is found in s.
func (r *redactor) text(s string) (string, int) {
	n := 0
	for _, re := range r.patterns {
		if !re.MatchString(s) {
			continue // which is usual, and cheaper
		}
		s = re.ReplaceAllStringFunc(s, func(string) string { n++; return redacted })
	}
	return s, n
}

// form looks at each name and value as it is meant. What cannot be decoded is text.
func (r *redactor) form(s string) (string, int) {
	parts := strings.FieldsFunc(s, func(c rune) bool { return c == '&' || c == '=' })
	n := 0
	var out strings.Builder
	for _, p := range parts {
		at := strings.Index(s, p)
		out.WriteString(s[:at])
		s = s[at+len(p):]
		meant, err := url.QueryUnescape(p)
		if err != nil {
			meant = p
		}
		if changed, k := r.text(meant); k > 0 {
			n += k
			p = url.QueryEscape(changed)
		}
		out.WriteString(p)
	}
	out.WriteString(s)
	return out.String(), n
}

// documents says whether a body is JSON: one document or several, as in lines of
// them. That it says so itself does not matter, since servers guess.
func documents(body []byte) bool {
	if json.Valid(body) {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(body))
	n := 0
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return n > 0 && errors.Is(err, io.EOF)
		}
		n++
	}
}

// json looks at each string and number of valid documents as it is meant, and leaves
// all bytes between them as they are.
func (r *redactor) json(s string) (string, int) {
	n, kept := 0, 0
	var out strings.Builder
	for i := 0; i < len(s); {
		end, meant := i+1, ""
		switch c := s[i]; {
		case c == '"':
			end, meant = literal(s, i)
		case c == '-' || '0' <= c && c <= '9':
			for end < len(s) && strings.IndexByte("+-.eE0123456789", s[end]) >= 0 {
				end++
			}
			meant = s[i:end]
		}
		if changed, k := r.text(meant); k > 0 {
			n += k
			if s[i] != '"' {
				changed = redacted // a number has no other parts
			}
			out.WriteString(s[kept:i])
			out.WriteString(quote(changed))
			kept = end
		}
		i = end
	}
	out.WriteString(s[kept:])
	return out.String(), n
}

// literal is the string that begins at i of a valid document, and its end.
func literal(s string, i int) (end int, meant string) {
	escaped := false
	for end = i + 1; s[end] != '"'; end++ {
		if s[end] == '\\' {
			escaped = true
			end++
		}
	}
	end++
	meant = s[i+1 : end-1]
	if escaped {
		// It cannot fail: the document is valid.
		_ = json.Unmarshal([]byte(s[i:end]), &meant)
	}
	return end, meant
}

// quote cannot fail: it is given a string.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}
