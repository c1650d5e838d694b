// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

func (r *reader) policy(n *yaml.Node, p *Policy) {
	versioned := false
	known := map[string]func(*yaml.Node){
		"version": func(v *yaml.Node) {
			versioned = true
			if v.Decode(&p.Version) != nil || p.Version != Version {
				r.fail(v, fmt.Sprintf("version must be %d, got %q", Version, v.Value), "")
			}
		},
		"filesystem_policy": func(v *yaml.Node) {
			if !null(v) {
				p.Filesystem = Filesystem{Line: v.Line}
				r.filesystem(v, &p.Filesystem)
			}
		},
		"landlock": func(v *yaml.Node) {
			if !null(v) {
				r.landlock(v, &p.Landlock)
			}
		},
		"process": func(v *yaml.Node) {
			if !null(v) {
				r.process(v, &p.Process)
			}
		},
		"network_policies": func(v *yaml.Node) {
			if !null(v) {
				p.Network = r.network(v)
			}
		},
		"network_middlewares": func(v *yaml.Node) {
			if !null(v) {
				p.Middlewares = r.middlewares(v)
			}
		},
		"preset": func(v *yaml.Node) {
			versioned = true // an addition needs no version
			r.fail(v, "a file with preset is an addition to a policy, not a policy", "openshell policy add POLICY FILE joins the two")
		},
	}
	where := "policy"
	if r.addition {
		where, versioned = "addition", true
		known["preset"] = r.preset
		for _, name := range []string{"filesystem_policy", "landlock", "process", "network_middlewares"} {
			known[name] = func(v *yaml.Node) {
				r.fail(v, name+" cannot be added to a policy", "an addition has network_policies alone")
			}
		}
	}
	r.fields(n, where, known)
	if len(r.errs) == 0 {
		r.uninspectable(p)
	}
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
		"include_workdir": func(v *yaml.Node) { f.IncludeWorkdir = r.boolean(v, "filesystem_policy.include_workdir") },
		"read_only":       list("read_only", &f.ReadOnly, false),
		"read_write":      list("read_write", &f.ReadWrite, true),
	})
}

// badPath returns what is wrong with a path, in OpenShell's words, or "".
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
			l.Hard = r.word(v, "landlock.compatibility", "best_effort", HardRequirement) == HardRequirement
		},
	})
}

func (r *reader) process(n *yaml.Node, p *Process) {
	id := func(name string, number **uint32, sandbox *bool) func(*yaml.Node) {
		return func(v *yaml.Node) {
			s := r.str(v, "process."+name)
			switch s {
			case "": // OpenShell: empty is omitted
				return
			case "sandbox":
				*sandbox = true
				return
			}
			var n uint32
			if _, err := fmt.Sscanf(s+"\n", "%d\n", &n); err != nil || n == 0 || n == 1<<32-1 {
				r.fail(v, fmt.Sprintf("%s must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '%s'", name, s), "")
				return
			}
			*number = &n
		}
	}
	r.fields(n, "process", map[string]func(*yaml.Node){
		"run_as_user":  id("run_as_user", &p.User, &p.SandboxUser),
		"run_as_group": id("run_as_group", &p.Group, &p.SandboxGroup),
	})
}
