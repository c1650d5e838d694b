// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"strings"
	"unicode/utf8"
)

// place is where a placeholder stands: which escapes mean something there, and how
// a value is written so that it stays one value.
type place struct {
	where  string
	native escape
	render func(dst []byte, value string) []byte
	// check is why a value cannot stand here, or empty.
	check func(value string) string
	// slot says which credentials may stand here; nil is all.
	slot slot
}

var (
	inPath  = &place{"path", percent, func(dst []byte, v string) []byte { return percentEncode(dst, v, ":@") }, checkSegment, pathSlot}
	inQuery = &place{"query", percent, percentStrict, nil, querySlot}
	inJSON  = &place{"JSON body", unicode, jsonEscape, checkUTF8, nil}
	inForm  = &place{"form body", percent, percentStrict, nil, nil}
	inText  = &place{"text body", 0, appendRaw, nil, nil}
)

func inHeader(name string) *place {
	return &place{"header " + name, 0, appendRaw, checkField, inHeaderSlot(name)}
}

// inBasic is the decoded credential of Basic in a header.
func inBasic(name string) *place {
	return &place{"header " + name, 0, appendRaw, nil, inHeaderSlot(name)}
}

func appendRaw(dst []byte, v string) []byte { return append(dst, v...) }

func percentStrict(dst []byte, v string) []byte { return percentEncode(dst, v, "") }

// percentEncode leaves unreserved characters (RFC 3986, 2.3) and keep as they are.
func percentEncode(dst []byte, v, keep string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(v) {
		if c := v[i]; isToken(c) || strings.IndexByte(keep, c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// jsonEscape escapes what must be (RFC 8259, 7) and nothing else.
func jsonEscape(dst []byte, v string) []byte {
	const hex = "0123456789abcdef"
	for i := range len(v) {
		switch c := v[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// checkField keeps a value within its header line.
func checkField(v string) string {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "its value has a control character, such as a line's end"
		}
	}
	return ""
}

// checkSegment keeps a value within its path segment also where a server decodes
// before it splits.
func checkSegment(v string) string {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c == 0x7f {
			return "its value has a control character, such as a line's end"
		}
	}
	if strings.ContainsAny(v, `/\?#%`) || strings.Contains(v, "..") || v == "." {
		return "its value would change the path"
	}
	return ""
}

func checkUTF8(v string) string {
	if !utf8.ValidString(v) {
		return "its value is not text"
	}
	return ""
}
