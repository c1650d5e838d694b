// SPDX-License-Identifier: Apache-2.0

package cleanup

import (
	"slices"
	"testing"
)

// recorder returns a stack whose functions record their names, and the record.
func recorder(names ...string) (s *Stack, called *[]string) {
	s, called = &Stack{}, &[]string{}
	for _, name := range names {
		s.Add(func() { *called = append(*called, name) })
	}
	return s, called
}

func TestCleanCallsTheLastAddedFirst(t *testing.T) {
	s, called := recorder("a", "b", "c")
	s.Clean()
	if want := []string{"c", "b", "a"}; !slices.Equal(*called, want) {
		t.Errorf("called %v, want %v", *called, want)
	}
	s.Clean()
	if len(*called) != 3 {
		t.Errorf("the second Clean called %v", (*called)[3:])
	}
}

func TestReleaseHandsTheFunctionsOver(t *testing.T) {
	s, called := recorder("a", "b")
	clean := s.Release()
	s.Clean()
	if len(*called) != 0 {
		t.Errorf("Clean after Release called %v", *called)
	}
	clean()
	clean()
	if want := []string{"b", "a"}; !slices.Equal(*called, want) {
		t.Errorf("called %v, want %v", *called, want)
	}
}

// TestCleanAfterPanic: a deferred Clean also runs when a step panics, and a function that
// panics itself does not keep a later Clean from calling the others.
func TestCleanAfterPanic(t *testing.T) {
	s, called := recorder("a")
	s.Add(func() { panic("undo") })
	func() {
		defer func() { _ = recover() }()
		s.Clean()
	}()
	s.Clean()
	if want := []string{"a"}; !slices.Equal(*called, want) {
		t.Errorf("called %v, want %v", *called, want)
	}
}
