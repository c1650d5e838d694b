// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// document is a request's body: a JSON object, of which the outermost members are
// known by where they are, so that one can be changed and all else stay as it is.
type document struct {
	raw     []byte
	open    int // where the outermost object's { is
	members []member
}

type member struct {
	key              string
	begin            int // of the key
	valueAt, valueTo int
}

var errNotObject = errors.New("the request's body is not a JSON object")

// parseDocument reads an object in which no key is twice, at any depth: two readers
// of one body must not see two things.
func parseDocument(raw []byte) (*document, error) {
	if !json.Valid(raw) || !utf8.Valid(raw) {
		return nil, errors.New("the request's body is not valid JSON")
	}
	d := &document{raw: raw}
	for isSpace(raw[d.open]) {
		d.open++
	}
	if raw[d.open] != '{' {
		return nil, errNotObject
	}
	if err := d.scan(); err != nil {
		return nil, err
	}
	return d, nil
}

// scan walks the document, which is known to be valid.
func (d *document) scan() error {
	var open []*keys // nil for an array
	var spare []*keys
	for i := d.open; i < len(d.raw); i++ {
		var top *keys
		if len(open) > 0 {
			top = open[len(open)-1]
		}
		switch c := d.raw[i]; c {
		case '{':
			k := new(keys)
			if n := len(spare); n > 0 {
				k, spare = spare[n-1], spare[:n-1]
			}
			k.reset()
			open = append(open, k)
		case '[':
			open = append(open, nil)
		case '}', ']':
			if len(open) == 1 {
				d.endValue(i)
			}
			if top != nil {
				spare = append(spare, top)
			}
			open = open[:len(open)-1]
		case ',':
			if top != nil {
				top.value = false
			}
			if len(open) == 1 {
				d.endValue(i)
			}
		case '"':
			end := stringEnd(d.raw, i)
			if top != nil && !top.value {
				key, err := unquote(d.raw[i:end])
				if err != nil {
					return err
				}
				if !top.add(key) {
					return fmt.Errorf("the key %.64q is twice in one object", key)
				}
				top.value = true
				if len(open) == 1 {
					if err := d.addMember(key, i, end); err != nil {
						return err
					}
				}
			}
			i = end - 1
		}
	}
	return nil
}

func (d *document) addMember(key string, begin, end int) error {
	if len(d.members) == MaxMembers {
		return fmt.Errorf("the request's body has more than %d members", MaxMembers)
	}
	for end < len(d.raw) && (isSpace(d.raw[end]) || d.raw[end] == ':') {
		end++
	}
	d.members = append(d.members, member{key: key, begin: begin, valueAt: end})
	return nil
}

func (d *document) endValue(i int) {
	if n := len(d.members); n > 0 && d.members[n-1].valueTo == 0 {
		for isSpace(d.raw[i-1]) {
			i--
		}
		d.members[n-1].valueTo = i
	}
}

// find returns the outermost member of a name. One whose name differs by case only
// is an error: some backends would take it for the same.
func (d *document) find(name string) (*member, error) {
	var found *member
	for i := range d.members {
		switch m := &d.members[i]; {
		case m.key == name:
			found = m
		case strings.EqualFold(m.key, name):
			return nil, fmt.Errorf("the key %.64q could be taken for %q", m.key, name)
		}
	}
	return found, nil
}

func (d *document) value(m *member) []byte { return d.raw[m.valueAt:m.valueTo] }

// text returns the member of a name, which must be a string, "" if there is none.
func (d *document) text(name string) (string, error) {
	m, err := d.find(name)
	if m == nil || err != nil {
		return "", err
	}
	if d.raw[m.valueAt] != '"' {
		return "", fmt.Errorf("%q is not a string", name)
	}
	return unquote(d.value(m))
}

// flag returns the member of a name, which must be true, false or null, and
// otherwise if there is none.
func (d *document) flag(name string, otherwise bool) (bool, error) {
	m, err := d.find(name)
	if m == nil || err != nil {
		return otherwise, err
	}
	switch string(d.value(m)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return otherwise, nil
	}
	return false, fmt.Errorf("%q is not true or false", name)
}

// withModel is the document with another model, all other bytes as they are.
func (d *document) withModel(model string) [][]byte {
	quoted := quote(model)
	for i := range d.members {
		if m := &d.members[i]; m.key == "model" {
			return [][]byte{d.raw[:m.valueAt], quoted, d.raw[m.valueTo:]}
		}
	}
	first := append([]byte(`"model":`), quoted...)
	if len(d.members) > 0 {
		first = append(first, ',')
	}
	return [][]byte{d.raw[:d.open+1], first, d.raw[d.open+1:]}
}

// vertexVersion is what Google takes in place of the anthropic-version header.
const vertexVersion = `"anthropic_version":"vertex-2023-10-16"`

// forVertex is the document as Google's Claude takes it: the model is in the path.
func (d *document) forVertex() [][]byte {
	out := [][]byte{[]byte("{" + vertexVersion)}
	for i := range d.members {
		switch m := &d.members[i]; m.key {
		case "model", "context_management", "anthropic_version":
		default:
			out = append(out, []byte{','}, d.raw[m.begin:m.valueTo])
		}
	}
	return append(out, []byte{'}'})
}

// keys is the set of an object's keys.
type keys struct {
	value bool // a value is next, not a key
	few   []string
	many  map[string]struct{}
}

const fewKeys = 16

func (k *keys) reset() {
	k.value, k.few, k.many = false, k.few[:0], nil
}

// add reports whether key is new.
func (k *keys) add(key string) bool {
	if k.many != nil {
		n := len(k.many)
		k.many[key] = struct{}{}
		return len(k.many) > n
	}
	for _, have := range k.few {
		if have == key {
			return false
		}
	}
	k.few = append(k.few, key)
	if len(k.few) > fewKeys {
		k.many = make(map[string]struct{}, 2*len(k.few))
		for _, have := range k.few {
			k.many[have] = struct{}{}
		}
	}
	return true
}

// stringEnd returns where the string that begins at i of a valid document ends.
func stringEnd(raw []byte, i int) int {
	for i++; ; i++ {
		j := bytes.IndexByte(raw[i:], '"')
		escapes := 0
		for k := i + j - 1; k >= i && raw[k] == '\\'; k-- {
			escapes++
		}
		i += j
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

func unquote(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// quote returns a model's name, which has no control characters, as JSON.
func quote(s string) []byte {
	s = strings.ReplaceAll(s, `\`, `\\`)
	return []byte(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
