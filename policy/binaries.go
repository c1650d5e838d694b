// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// binarySet holds the programs that may use the endpoints of a policy.
type binarySet struct {
	paths map[string]struct{}
	globs []Glob
}

func compileBinaries(list []Binary, aliases map[string][]string) (binarySet, error) {
	s := binarySet{paths: map[string]struct{}{}}
	for i, b := range list {
		if strings.Contains(b.Path, "*") {
			g, err := CompileGlob(b.Path, '/')
			if err != nil {
				return binarySet{}, fmt.Errorf("binaries[%d]: %w", i, err)
			}
			s.globs = append(s.globs, g)
			continue
		}
		s.paths[b.Path] = struct{}{}
		for _, a := range aliases[b.Path] {
			s.paths[a] = struct{}{}
		}
	}
	return s, nil
}

// match reports whether the program or one of its ancestors is in the set. An empty path,
// which means an unknown program, never is.
func (s *binarySet) match(r *Request) bool {
	if r.Binary == "" {
		return false
	}
	if s.has(r.Binary) {
		return true
	}
	return slices.ContainsFunc(r.Ancestors, s.has)
}

func (s *binarySet) has(path string) bool {
	if path == "" {
		return false
	}
	if _, ok := s.paths[path]; ok {
		return true
	}
	for i := range s.globs {
		if s.globs[i].Match(path) {
			return true
		}
	}
	return false
}

// Binaries returns the paths of programs that the document names in full, sorted. The
// caller resolves their symbolic links for [CompileOptions.Aliases].
func (p *Policy) Binaries() []string {
	set := map[string]struct{}{}
	for _, n := range p.Network {
		for _, b := range n.Binaries {
			if !strings.Contains(b.Path, "*") {
				set[b.Path] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}
