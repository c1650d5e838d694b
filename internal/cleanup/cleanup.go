// SPDX-License-Identifier: Apache-2.0

// Package cleanup undoes the steps of an operation, the last step first.
//
// A function that takes several resources adds to a [Stack] what gives each of them back,
// and defers [Stack.Clean] once. Then every return, also one in the middle, gives back
// exactly what was taken before it:
//
//	var undo cleanup.Stack
//	defer undo.Clean()
//	dir, err := makeDir()
//	if err != nil {
//		return nil, err
//	}
//	undo.Add(func() { os.RemoveAll(dir) })
//
// A function that hands its resources on calls [Stack.Release] at its end. The idea is
// gVisor's pkg/cleanup. A Stack is for one goroutine.
package cleanup

// Stack holds the functions that undo steps. The zero value is empty.
type Stack struct{ undo []func() }

// Add puts f on the stack.
func (s *Stack) Add(f func()) { s.undo = append(s.undo, f) }

// Clean takes every function from the stack and calls it. The function that was added last
// is called first.
func (s *Stack) Clean() {
	for len(s.undo) > 0 {
		last := len(s.undo) - 1
		f := s.undo[last]
		s.undo = s.undo[:last]
		f()
	}
}

// Release empties the stack without calling its functions. It returns a function that
// calls them later, once.
func (s *Stack) Release() (clean func()) {
	released := *s
	s.undo = nil
	return released.Clean
}
