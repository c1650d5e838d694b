// SPDX-License-Identifier: Apache-2.0

// Package policy is the document that says what a sandbox may do: OpenShell's
// schema, version 1. It is pure: no files, no network, no clock.
//
// Of the schema this package reads what is enforced today: files, Landlock and
// process. A document that uses more is refused with the field's line, because a
// rule that is accepted and not enforced would be worse than none.
package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of a document, as OpenShell sets them.
const (
	// MaxSize bounds the document, in bytes.
	MaxSize = 4 << 20
	// MaxPathLength bounds one path, in bytes.
	MaxPathLength = 4096
	// MaxPaths bounds the paths of both lists together.
	MaxPaths = 256
)

// Version is the only schema version there is.
const Version = 1

// HardRequirement is the landlock.compatibility that fails on a missing path.
const HardRequirement = "hard_requirement"

// Policy is one document.
type Policy struct {
	Version    int
	Filesystem Filesystem
	Landlock   Landlock
	Process    Process
}

// Filesystem is filesystem_policy. Absent, it includes the working directory;
// present, it does so only when it says so.
type Filesystem struct {
	IncludeWorkdir      bool
	ReadOnly, ReadWrite []string
}

// Landlock is how missing paths are taken.
type Landlock struct {
	// Hard is landlock.compatibility: hard_requirement.
	Hard bool
}

// Process is the identity the workload runs with; nil keeps the image's.
type Process struct {
	User, Group *uint32
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
	if len(data) > MaxSize {
		return nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: fmt.Sprintf("policy is larger than %d bytes", MaxSize)}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, &SyntaxError{File: file, Line: 1, Col: 1, Msg: err.Error()}
	}
	r := &reader{file: file}
	p := &Policy{Filesystem: Filesystem{IncludeWorkdir: true}}
	if doc.Kind != yaml.DocumentNode {
		r.fail(&yaml.Node{Line: 1, Column: 1}, "policy is empty", "a policy needs at least version: 1")
		return nil, r.err()
	}
	r.policy(doc.Content[0], p)
	if err := r.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// reader walks the document and keeps what is wrong with it.
type reader struct {
	file string
	errs []error
}

func (r *reader) err() error { return errors.Join(r.errs...) }

func (r *reader) fail(n *yaml.Node, msg, fix string) {
	r.errs = append(r.errs, &SyntaxError{File: r.file, Line: n.Line, Col: n.Column, Msg: msg, Fix: fix})
}

// fields calls read for each key of a mapping and refuses what it has no entry
// for, duplicates, and aliases (which could make a small file a huge one).
func (r *reader) fields(n *yaml.Node, where string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.fail(n, where+" must be a mapping", "")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		read, ok := known[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode || !ok:
			fix := ""
			if near := nearest(k.Value, known); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			r.fail(k, fmt.Sprintf("unknown field %q in %s", k.Value, where), fix)
		case seen[k.Value]:
			r.fail(k, fmt.Sprintf("duplicate field %q in %s", k.Value, where), "")
		case v.Kind == yaml.AliasNode:
			r.fail(v, "YAML aliases are not accepted in policies", "")
		default:
			seen[k.Value] = true
			read(v)
		}
	}
}

func (r *reader) policy(n *yaml.Node, p *Policy) {
	versioned := false
	notYet := func(name string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			if v.Kind != yaml.MappingNode {
				r.fail(v, name+" must be a mapping", "")
			} else if len(v.Content) > 0 {
				r.fail(v.Content[0], fmt.Sprintf("%s.%s: network rules are not enforced by this version, so a policy that has some is refused; without any the sandbox has no network", name, v.Content[0].Value), "")
			}
		}
	}
	r.fields(n, "policy", map[string]func(*yaml.Node){
		"version": func(v *yaml.Node) {
			versioned = true
			if v.Decode(&p.Version) != nil || p.Version != Version {
				r.fail(v, fmt.Sprintf("version must be %d, got %q", Version, v.Value), "")
			}
		},
		"filesystem_policy": func(v *yaml.Node) {
			p.Filesystem = Filesystem{}
			r.filesystem(v, &p.Filesystem)
		},
		"landlock":            func(v *yaml.Node) { r.landlock(v, &p.Landlock) },
		"process":             func(v *yaml.Node) { r.process(v, &p.Process) },
		"network_policies":    notYet("network_policies"),
		"network_middlewares": notYet("network_middlewares"),
	})
	if !versioned && n.Kind == yaml.MappingNode {
		r.fail(n, "missing field \"version\"", "write version: 1")
	}
}

func (r *reader) filesystem(n *yaml.Node, f *Filesystem) {
	total := 0
	list := func(name string, into *[]string, writable bool) func(*yaml.Node) {
		return func(v *yaml.Node) {
			if v.Kind != yaml.SequenceNode {
				r.fail(v, "filesystem_policy."+name+" must be a list of paths", "")
				return
			}
			for _, e := range v.Content {
				total++
				if total == MaxPaths+1 {
					r.fail(e, fmt.Sprintf("too many filesystem paths (%d > %d)", total, MaxPaths), "")
				}
				if e.Kind != yaml.ScalarNode || e.Tag != "!!str" {
					r.fail(e, "filesystem_policy."+name+" must be a list of paths", "")
					continue
				}
				if msg := badPath(e.Value, writable); msg != "" {
					r.fail(e, msg, "")
					continue
				}
				*into = append(*into, e.Value)
			}
		}
	}
	r.fields(n, "filesystem_policy", map[string]func(*yaml.Node){
		"include_workdir": func(v *yaml.Node) {
			if v.Tag != "!!bool" || v.Decode(&f.IncludeWorkdir) != nil {
				r.fail(v, fmt.Sprintf("filesystem_policy.include_workdir must be true or false, got %q", v.Value), "")
			}
		},
		"read_only":  list("read_only", &f.ReadOnly, false),
		"read_write": list("read_write", &f.ReadWrite, true),
	})
}

// badPath says what is wrong with a path, in OpenShell's words.
func badPath(p string, writable bool) string {
	switch {
	case len(p) > MaxPathLength:
		return fmt.Sprintf("path exceeds maximum length (%d > %d): %.64s…", len(p), MaxPathLength, p)
	case !strings.HasPrefix(p, "/"):
		return "path must be absolute (start with '/'): " + p
	case strings.ContainsRune(p, 0):
		return fmt.Sprintf("path contains a NUL byte: %q", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return "path contains '..' traversal component: " + p
		}
	}
	if writable && path.Clean(p) == "/" {
		return "read-write path is overly broad: " + p
	}
	return ""
}

func (r *reader) landlock(n *yaml.Node, l *Landlock) {
	r.fields(n, "landlock", map[string]func(*yaml.Node){
		"compatibility": func(v *yaml.Node) {
			switch v.Value {
			case HardRequirement:
				l.Hard = true
			case "best_effort":
			default:
				r.fail(v, fmt.Sprintf("unknown landlock.compatibility %q", v.Value), "best_effort or hard_requirement")
			}
		},
	})
}

func (r *reader) process(n *yaml.Node, p *Process) {
	id := func(name string, into **uint32) func(*yaml.Node) {
		return func(v *yaml.Node) {
			if v.Kind == yaml.ScalarNode && v.Value == "" && v.Tag == "!!str" {
				return // OpenShell: empty is omitted
			}
			var n uint32
			if v.Kind != yaml.ScalarNode || v.Value == "sandbox" {
				r.fail(v, fmt.Sprintf("process.%s: only numeric IDs are enforced by this version, got %q", name, v.Value), "")
				return
			}
			if _, err := fmt.Sscanf(v.Value+"\n", "%d\n", &n); err != nil || n == 0 || n == 1<<32-1 {
				r.fail(v, fmt.Sprintf("%s must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '%s'", name, v.Value), "")
				return
			}
			*into = &n
		}
	}
	r.fields(n, "process", map[string]func(*yaml.Node){
		"run_as_user":  id("run_as_user", &p.User),
		"run_as_group": id("run_as_group", &p.Group),
	})
}

// nearest is the known key closest to s, if it is close enough to be a typo.
func nearest(s string, known map[string]func(*yaml.Node)) string {
	best, at := "", 3
	for k := range known {
		if d := distance(s, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's, of at most 64 bytes of each.
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
