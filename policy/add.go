// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// networkPolicies is the field of a document that [Add] extends.
const networkPolicies = "network_policies"

// Document is the text of a policy or an addition, with the name of its file.
type Document struct {
	File string
	Text []byte
}

// Add returns the text of the policy base, extended by the network_policies of the
// additions. An addition is a document that has only network_policies. It may also have the
// field preset, as NemoClaw's presets do. An entry that the policy already has with equal
// fields is not added again. Add fails if the policy has an entry with the same key and
// other fields, and if the result is not a valid policy.
func Add(base Document, additions ...Document) ([]byte, error) {
	_, doc, err := parse(&reader{file: base.File}, base.Text)
	if err != nil {
		return nil, err
	}
	into := section(doc.Content[0])
	result := base.File
	for _, a := range additions {
		_, added, err := parse(&reader{file: a.File, addition: true}, a.Text)
		if err != nil {
			return nil, err
		}
		if err := extend(into, section(added.Content[0]), a.File); err != nil {
			return nil, err
		}
		result += " + " + a.File
	}
	text, err := encodeYAML(doc)
	if err == nil {
		_, err = Parse(result, []byte(text))
	}
	return []byte(text), err
}

// section returns the value of network_policies in a valid document. It adds the field if
// it is absent.
func section(document *yaml.Node) *yaml.Node {
	for i := 0; i < len(document.Content); i += 2 {
		v := document.Content[i+1]
		if document.Content[i].Value != networkPolicies {
			continue
		}
		if null(v) {
			*v = yaml.Node{Kind: yaml.MappingNode, HeadComment: v.HeadComment, LineComment: v.LineComment, FootComment: v.FootComment}
		}
		v.Style = 0 // one entry a line, also in place of {}
		return v
	}
	v := &yaml.Node{Kind: yaml.MappingNode}
	document.Content = append(document.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: networkPolicies}, v)
	return v
}

// extend adds the entries of one mapping to another.
func extend(into, entries *yaml.Node, file string) error {
	for i := 0; i < len(entries.Content); i += 2 {
		k, v := entries.Content[i], entries.Content[i+1]
		switch there := value(into, k.Value); {
		case there == nil:
			into.Content = append(into.Content, k, v)
		case !sameNode(there, v):
			return &SyntaxError{
				File: file, Line: k.Line, Col: k.Column, Msg: fmt.Sprintf("the policy has another %s.%s", networkPolicies, k.Value),
				Fix: "give one of them another key",
			}
		}
	}
	return nil
}

// value returns the value of a key in a mapping, or nil if the mapping does not have it.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// sameNode reports whether two nodes have the same values, whatever their style.
func sameNode(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !sameNode(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// preset reads the field preset, which describes an addition.
func (r *reader) preset(n *yaml.Node) {
	text := func(name string) func(*yaml.Node) {
		return func(v *yaml.Node) { r.str(v, "preset."+name) }
	}
	r.fields(n, "preset", map[string]func(*yaml.Node){"name": text("name"), "description": text("description")})
}
