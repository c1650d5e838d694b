// SPDX-License-Identifier: Apache-2.0

package credentials

import "strings"

const (
	// Marker begins a placeholder; the key follows.
	Marker = "openshell:resolve:env:"
	// AliasMarker begins the key in a token that some client takes for a
	// credential of the right form, such as xoxb-OPENSHELL-RESOLVE-ENV-SLACK_TOKEN.
	// The whole token stands for the value.
	AliasMarker = "OPENSHELL-RESOLVE-ENV-"

	// maxMarker is the longest a marker can be written.
	maxMarker = len(`\\u003a`) * len(Marker)
)

// beginnings are what a marker can begin with.
var beginnings = func() (p pairs) {
	for _, s := range []string{"op", "o%", `o\`, "OP", "O%", `O\`, "%6", "%4", "%2", `\u`, `\\`} {
		p.add(s[0], s[1])
	}
	return p
}()

// found is a marker in a text.
type found struct {
	start, end int
	alias      bool
	how        escape // every escape used in it
}

// findMarker looks for the first marker from from on. Without one, everything
// before safe is part of none; with final nothing follows b.
func findMarker(b []byte, from int, final bool) (m found, ok bool, safe int) {
	for i := from; ; i++ {
		if i = beginnings.next(b, i); i >= len(b) {
			return found{}, false, len(b)
		}
		if otherEscape(b[i:]) {
			continue
		}
		m, ok, more := markerAt(b, i)
		if ok {
			return m, true, i
		}
		if more && !final {
			return found{}, false, i
		}
	}
}

// otherEscape says whether b begins with an escape of another character, as texts
// in many languages are full of.
func otherEscape(b []byte) bool {
	return len(b) > 4 && (b[0] == '\\' && b[1] == 'u' && (b[2] != '0' || b[3] != '0' || b[4] != '4' && b[4] != '6') ||
		b[0] == '%' && b[1] == '2' && b[2] != '5')
}

// markerAt says whether a marker begins at b[i], or may if more follows.
func markerAt(b []byte, i int) (m found, ok, more bool) {
	c, n, how := symbol(b, i)
	m = found{start: i, alias: c == AliasMarker[0]}
	want := Marker
	switch {
	case n == 0:
		return m, false, true
	case m.alias:
		want = AliasMarker
	case c != Marker[0]:
		return m, false, false
	}
	for k := 0; ; {
		m.how |= how
		i += n
		if k++; k == len(want) {
			m.end = i
			return m, true, false
		}
		if i == len(b) {
			return m, false, true
		}
		if c, n, how = symbol(b, i); n == 0 {
			return m, false, true
		}
		if c != want[k] {
			return m, false, false
		}
	}
}

// readKey reads the key behind a marker; escapes are those that count as such in
// it. More means that it may go on behind b.
func readKey(b []byte, i int, escapes escape, alias bool) (key string, end int, more bool) {
	var out []byte
	keyEnd := -1
	for i < len(b) && len(out) <= MaxKey+maxAliasPrefix {
		c, n, how := b[i], 1, escape(0)
		if c == '%' && escapes&percent != 0 || c == '\\' && escapes&unicode != 0 {
			c, n, how = symbol(b, i)
		}
		if n == 0 {
			return string(out), i, true
		}
		if how&^escapes != 0 || !isKey(c) {
			if !alias || how&^escapes != 0 || !isToken(c) {
				return closeKey(out, keyEnd), i, false
			}
			if keyEnd < 0 {
				keyEnd = len(out) // the rest of the token belongs to no key
			}
		}
		out = append(out, c)
		i += n
	}
	return closeKey(out, keyEnd), i, i == len(b)
}

func closeKey(out []byte, end int) string {
	if end >= 0 {
		out = out[:end]
	}
	return string(out)
}

// keyName is a key as a placeholder names it.
type keyName struct {
	name string
	// exact names one revision or a handle.
	exact bool
}

// parseKey takes v<digits>_ and s<64hex>_ off a key.
func parseKey(k string) keyName {
	head, name, ok := strings.Cut(k, "_")
	if !ok || name == "" || len(head) < 2 {
		return keyName{name: k}
	}
	if head[0] == 'v' && strings.Trim(head[1:], "0123456789") == "" || head[0] == 's' && isHandle(head[1:]) {
		return keyName{name: name, exact: true}
	}
	return keyName{name: k}
}

func isHandle(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
