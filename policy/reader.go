// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// reader walks the YAML document and collects its errors.
type reader struct {
	file string
	// addition is true for a document that [Add] adds to another one.
	addition bool
	errs     []error
	// notes are Policy.Notes, in the order of the document.
	notes []Warning
	// The number of each in the document so far.
	endpoints, binaries, rules, globs int
	// reading reads the endpoints, one after the other.
	reading *endpointReader
}

func (r *reader) err() error { return errors.Join(r.errs...) }

// full reports whether more errors than MaxProblems were found.
func (r *reader) full() bool { return len(r.errs) > MaxProblems }

func (r *reader) fail(n *yaml.Node, msg, fix string) {
	switch {
	case r.full():
		return
	case len(r.errs) == MaxProblems:
		msg, fix = fmt.Sprintf("more than %d problems, the others are not listed", MaxProblems), ""
	}
	if len(msg) > MaxMessage {
		msg = strings.ToValidUTF8(msg[:MaxMessage], "") + "…"
	}
	r.errs = append(r.errs, &SyntaxError{File: r.file, Line: n.Line, Col: n.Column, Msg: msg, Fix: fix})
}

// note adds a warning to Policy.Notes: OpenShell 0.1 refuses refused at n, and this package
// reads it as read.
func (r *reader) note(n *yaml.Node, refused, read string) {
	r.notes = append(r.notes, Warning{n.Line, "OpenShell 0.1 refuses " + refused + "; " + read})
}

// depth reports whether n nests at most MaxDepth levels deep, so that recursion is safe.
func (r *reader) depth(n *yaml.Node, at int) bool {
	if at > MaxDepth {
		r.fail(n, fmt.Sprintf("policy nests deeper than %d", MaxDepth), "")
		return false
	}
	return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !r.depth(c, at+1) })
}

// entries calls read for each key of a mapping. It refuses duplicate keys, and aliases,
// with which a small file could expand to a huge one.
func (r *reader) entries(n *yaml.Node, where string, read func(k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.fail(n, where+" must be a mapping", "")
		return
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content) && !r.full(); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.AliasNode || v.Kind == yaml.AliasNode || k.Tag == "!!merge":
			r.fail(v, "YAML aliases are not accepted in policies", "")
		case k.Kind != yaml.ScalarNode:
			r.fail(k, "a key of "+where+" is not a plain word", "")
		case len(k.Value) > MaxKey:
			r.fail(k, fmt.Sprintf("a key of %s is longer than %d bytes", where, MaxKey), "")
		case seen[k.Value]:
			r.fail(k, fmt.Sprintf("duplicate field %q in %s", k.Value, where), "")
		default:
			seen[k.Value] = true
			read(k, v)
		}
	}
}

// fields calls the function in known for each key of a mapping. It refuses unknown keys.
func (r *reader) fields(n *yaml.Node, where string, known map[string]func(*yaml.Node)) {
	r.entries(n, where, func(k, v *yaml.Node) {
		if read, ok := known[k.Value]; ok {
			read(v)
			return
		}
		fix := ""
		if near := nearest(k.Value, maps.Keys(known)); near != "" {
			fix = fmt.Sprintf("did you mean %q?", near)
		}
		r.fail(k, fmt.Sprintf("unknown field %q in %s", k.Value, where), fix)
	})
}

// list returns the elements of a list, which may have at most most elements.
func (r *reader) list(n *yaml.Node, what string, most int) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, what+" must be a list", "")
		return nil
	}
	if len(n.Content) > most {
		r.fail(n.Content[most], fmt.Sprintf("%s has too many elements (%d > %d)", what, len(n.Content), most), "")
		return nil
	}
	for _, e := range n.Content {
		if e.Kind == yaml.AliasNode {
			r.fail(e, "YAML aliases are not accepted in policies", "")
			return nil
		}
	}
	return n.Content
}

// more adds one to count, the number of such things in the document, and reports whether it
// stays within most.
func (r *reader) more(count *int, most int, n *yaml.Node, what string) bool {
	*count++
	if *count == most+1 {
		r.fail(n, fmt.Sprintf("too many %s in the policy (more than %d)", what, most), "")
	}
	return *count <= most
}

// str returns the text of a string. As in OpenShell, numbers and booleans are strings with
// the text that the document has.
func (r *reader) str(n *yaml.Node, what string) string {
	if n.Kind == yaml.ScalarNode {
		switch n.Tag {
		case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
			return n.Value
		}
	}
	r.fail(n, what+" must be a string", "")
	return ""
}

func (r *reader) boolean(n *yaml.Node, what string) (b bool) {
	if n.Tag != "!!bool" || n.Decode(&b) != nil {
		r.fail(n, fmt.Sprintf("%s must be true or false, got %q", what, n.Value), "")
	}
	return b
}

// word returns a string that is empty or one of words.
func (r *reader) word(n *yaml.Node, what string, words ...string) string {
	s := r.str(n, what)
	if s == "" || slices.Contains(words, s) {
		return s
	}
	fix := "one of " + strings.Join(words, ", ")
	if near := nearest(asciiLower(s), slices.Values(words)); near != "" {
		fix = fmt.Sprintf("did you mean %q?", near)
	}
	r.fail(n, fmt.Sprintf("unknown %s %q", what, s), fix)
	return ""
}

// null reports whether an optional section is present but empty.
func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// nearest returns the known word that is closest to s, if s is close enough to be a typo of
// it.
func nearest(s string, known iter.Seq[string]) string {
	best, at := "", 3
	for k := range known {
		if d := distance(s, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	return best
}

// distance returns the Levenshtein distance between the first 64 bytes of a and of b.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
