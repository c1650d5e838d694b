// SPDX-License-Identifier: Apache-2.0

package credentials

import "strings"

// Place is the part of a request in which the placeholder of a credential is replaced by
// its value, in addition to the header Authorization and the bodies and messages that are
// rewritten. At most one field is set. The zero value adds no part.
type Place struct {
	// Header is the name of a header field, Query of a query parameter.
	Header, Query string
	// Path is a path with {credential} where the value stands. What follows it is a prefix.
	Path string
}

// credentialSlot marks the value in Place.Path.
const credentialSlot = "{credential}"

// String names the place to people.
func (p Place) String() string {
	switch {
	case p.Header != "":
		return "the header " + p.Header
	case p.Query != "":
		return "the query parameter " + p.Query
	case p.Path != "":
		return "the path " + p.Path
	}
	return "the header Authorization"
}

// all names every place of a credential with the place p, except bodies and messages.
func (p Place) all() string {
	if p == (Place{}) {
		return p.String()
	}
	return p.String() + " or " + Place{}.String()
}

// slot reports whether the placeholder of a credential with the place p is replaced in a
// text, between before and after.
type slot func(p Place, before, after []byte) bool

// inHeaderSlot is the slot of a header field.
func inHeaderSlot(name string) slot {
	return func(p Place, _, _ []byte) bool {
		return strings.EqualFold(name, "Authorization") || p.Header != "" && strings.EqualFold(name, p.Header)
	}
}

// querySlot is the slot of a query: the value of a parameter.
func querySlot(p Place, before, _ []byte) bool {
	pair := string(before)
	pair = pair[strings.LastIndexAny(pair, "&;")+1:]
	name, _, ok := strings.Cut(pair, "=")
	plain, _ := percentDecode(strings.ReplaceAll(name, "+", " "))
	return ok && p.Query != "" && plain == p.Query
}

// pathSlot is the slot of a path.
func pathSlot(p Place, before, after []byte) bool {
	prefix, suffix, ok := strings.Cut(p.Path, credentialSlot)
	return ok && string(before) == prefix && strings.HasPrefix(string(after), suffix)
}
