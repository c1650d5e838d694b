// SPDX-License-Identifier: Apache-2.0

// Package policy decides which connections and requests of a sandbox are allowed. It
// implements version 1 of OpenShell's policy schema. It reads no files, opens no
// connections and does not use the clock: the same input always gives the same answer.
//
// The way of a policy from text to decision:
//
//  1. [Parse] reads a YAML document and returns a [Policy], or all errors in the document,
//     each with its line.
//  2. [Compile] turns the [Policy] into an [Engine], which many goroutines can use.
//  3. [Engine.Decide] judges a [Request]. Without [Request.HTTP] it judges the connection
//     alone. If the [Decision] has Inspect set, the caller must read the requests on the
//     connection and ask again for each of them, with [Request.HTTP].
//  4. [Destination.Check] judges the addresses that the host resolves to. All of them must
//     pass before the caller dials one.
//
// A [Request] must have one spelling only, because servers read other spellings in
// different ways. [NormalizeHost], [CanonicalPath] and [CanonicalQuery] produce that
// spelling or fail; [Overrides] finds the headers and parameters that replace the method or
// the path.
//
// The rest helps the author of a policy: [Lint] warns of rules that do not do what they
// seem to do, [Suggest] proposes the smallest addition that allows a refused request, and
// [Add] merges presets into a policy. [StaticDiff] reports changes that need a new
// sandbox.
//
// The package fails closed. The zero [Decision], [Engine] and [Destination] deny. Parse
// knows every field of the schema and refuses a document that uses a field which is not
// enforced: a rule that is accepted but not enforced would be worse than no rule.
//
// The package does not find out who the caller is, does not resolve names and does not
// enforce filesystem_policy, landlock or process: it parses them for the programs that do.
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

// Version is the only supported version of the schema.
const Version = 1

// HardRequirement is the value of landlock.compatibility with which a sandbox does not
// start if the kernel has no Landlock or if none of the policy's paths can be opened.
const HardRequirement = "hard_requirement"

// cedarSuffix is the suffix of files in Cedar, the second policy language of OpenShell,
// which this package does not support.
const cedarSuffix = ".cedar"

// Policy is one parsed document.
type Policy struct {
	Version    int
	Filesystem Filesystem
	Landlock   Landlock
	Process    Process
	// Network holds the entries of network_policies, sorted by key.
	Network []NetworkPolicy
	// Middlewares holds the entries of network_middlewares, sorted by key.
	Middlewares []Middleware
	// Notes holds warnings about the parts of the document that OpenShell 0.0.x accepts and
	// 0.1 refuses, sorted by line. Parse accepts these parts; [Lint] returns the warnings.
	Notes []Warning
}

// Filesystem is filesystem_policy. If the field is absent, IncludeWorkdir is true. If it is
// present, IncludeWorkdir is true only if the document sets it.
type Filesystem struct {
	IncludeWorkdir      bool
	ReadOnly, ReadWrite []string
	// Line is the line of the field in its document; 0 if the field is absent.
	Line int
}

// Landlock is the field landlock. It decides what happens if the kernel has no Landlock or
// the container lacks a path.
type Landlock struct {
	// Hard is true for landlock.compatibility: [HardRequirement].
	Hard bool
}

// Process holds the IDs with which the workload runs. The workload keeps the image's user
// or group if the field is nil.
type Process struct {
	User, Group *uint32
	// SandboxUser and SandboxGroup are true if the document names the user or group
	// "sandbox". Its ID comes from the container's passwd or group file; the creation of
	// the sandbox fails if the file does not have the name.
	SandboxUser, SandboxGroup bool
}

// SyntaxError is one error in a document.
type SyntaxError struct {
	File      string
	Line, Col int
	// Msg describes the error. Fix, if not empty, says what to write instead.
	Msg, Fix string
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Parse reads and validates a document. file is used in error messages only. The error
// joins all errors of the document, each a [*SyntaxError].
func Parse(file string, data []byte) (*Policy, error) {
	p, _, err := parse(&reader{file: file}, data)
	return p, err
}

// parse is Parse with a given reader. It also returns the YAML document.
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
