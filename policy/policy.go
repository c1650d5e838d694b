// SPDX-License-Identifier: Apache-2.0

// Package policy is the document that says what a sandbox may do: OpenShell's
// schema, version 1. It is pure: no files, no network, no clock.
//
// It knows every field of the schema. A document that uses one that is not
// enforced is refused with the field's line, because a rule that is accepted and
// not enforced would be worse than none.
package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Version is the only schema version there is.
const Version = 1

// HardRequirement is the landlock.compatibility that fails without Landlock, or if none of
// the policy's paths can be opened.
const HardRequirement = "hard_requirement"

// cedarSuffix ends the names of files in Cedar, the second language of OpenShell's
// policies.
const cedarSuffix = ".cedar"

// Policy is one document.
type Policy struct {
	Version    int
	Filesystem Filesystem
	Landlock   Landlock
	Process    Process
	// Network are the entries of network_policies, sorted by key.
	Network []NetworkPolicy
	// Middlewares are the entries of network_middlewares, sorted by key.
	Middlewares []Middleware
	// Notes are the parts of the document that OpenShell 0.0.x accepts and 0.1 refuses,
	// sorted by line. They are accepted here, and Lint warns of them.
	Notes []Warning
}

// Filesystem is filesystem_policy. Absent, it includes the working directory;
// present, it does so only when it says so.
type Filesystem struct {
	IncludeWorkdir      bool
	ReadOnly, ReadWrite []string
	// Line is where it stands in its document; 0 if it is absent.
	Line int
}

// Landlock says what happens if the kernel has no Landlock or the container lacks a path.
type Landlock struct {
	// Hard is true for landlock.compatibility: hard_requirement.
	Hard bool
}

// Process is the identity the workload runs with; nil keeps the image's.
type Process struct {
	User, Group *uint32
	// SandboxUser and SandboxGroup ask for the IDs that the container's passwd and
	// group give the name sandbox; without such a name create fails.
	SandboxUser, SandboxGroup bool
}

// SyntaxError is one thing wrong with a document.
type SyntaxError struct {
	File      string
	Line, Col int
	// Msg is what is wrong; Fix, if not empty, what to write instead.
	Msg, Fix string
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Parse reads and validates a document. The error joins all that is wrong, each
// a *SyntaxError.
func Parse(file string, data []byte) (*Policy, error) {
	p, _, err := parse(&reader{file: file}, data)
	return p, err
}

// parse also returns the YAML document.
func parse(r *reader, data []byte) (*Policy, *yaml.Node, error) {
	file := r.file
	if len(data) > MaxSize {
		return nil, nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: fmt.Sprintf("policy is larger than %d bytes", MaxSize)}
	}
	if strings.HasSuffix(file, cedarSuffix) {
		return nil, nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: "Cedar policies are not supported", Fix: "write the policy in YAML"}
	}
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: "policy is empty", Fix: "a policy needs at least version: 1"}
	case err != nil:
		return nil, nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: err.Error()}
	}
	p := &Policy{Filesystem: Filesystem{IncludeWorkdir: true}}
	if err := decoder.Decode(&second); err == nil {
		r.fail(&second, "a file holds one policy, and this begins another YAML document", "")
	} else if !errors.Is(err, io.EOF) {
		r.fail(&doc, err.Error(), "")
	}
	if r.depth(&doc, 0) {
		r.policy(doc.Content[0], p)
	}
	slices.SortStableFunc(r.notes, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	p.Notes = r.notes
	if err := r.err(); err != nil {
		return nil, nil, err
	}
	return p, &doc, nil
}
