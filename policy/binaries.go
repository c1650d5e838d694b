// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// binarySet is which programs may use the endpoints of a policy.
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

// match says whether the program or one of its ancestors is in the set. What is
// not known (an empty path) never is, and vouches for nobody.
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

// Binaries are the literal paths of programs that the document names, sorted:
// those whose links CompileOptions.Aliases is to follow.
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
