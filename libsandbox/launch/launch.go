// SPDX-License-Identifier: Apache-2.0

// Package launch is the document that the runtime hands to openshell-launch (hooks/launch),
// the last program inside a container before the user's.
//
// The runtime writes [Instructions] as JSON into a sealed memfd and names its descriptor in
// the first argument of openshell-launch. Both programs are of the same build, so the
// document has no version. [Decode] refuses what it does not know.
//
// The package imports only libsandbox/landlock: it becomes part of the smallest program
// that is put into somebody else's container.
package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"openshell.dev/runtime/libsandbox/landlock"
)

const (
	// MaxSize bounds the encoded instructions, in bytes.
	MaxSize = 1 << 20
	// MaxFilter bounds the seccomp filter, in instructions: the kernel's BPF_MAXINSNS.
	MaxFilter = 4096
	// InstructionSize is the size of the kernel's struct sock_filter, in bytes.
	InstructionSize = 8
)

// Instructions are the rights that openshell-launch drops on its thread before it executes
// the user's program.
type Instructions struct {
	// Landlock is the ruleset; one with the ABI 0 restricts nothing.
	Landlock landlock.Ruleset `json:"landlock"`
	// Filter is a seccomp program: 1 to MaxFilter times a struct sock_filter.
	Filter []byte `json:"filter"`
	// Keep is the number of descriptors, from 3 on, that the user's program gets. All
	// others are closed.
	Keep int `json:"keep"`
}

// Encode returns the JSON of in. It fails if [Decode] would not take it.
func Encode(in *Instructions) ([]byte, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode launch's instructions: %w", err)
	}
	if len(text) > MaxSize {
		return nil, fmt.Errorf("encode launch's instructions: %d bytes, and %d are the most: the policy has too many paths", len(text), MaxSize)
	}
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("encode launch's instructions: %w", err)
	}
	return text, nil
}

// Decode reads the whole of text. An unknown field, a second document and a filter that the
// kernel would not take are errors.
func Decode(text []byte) (*Instructions, error) {
	in := &Instructions{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return nil, fmt.Errorf("read instructions: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read instructions: more than one document")
	}
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("read instructions: %w", err)
	}
	return in, nil
}

func (in *Instructions) check() error {
	if n := len(in.Filter); n == 0 || n%InstructionSize != 0 || n/InstructionSize > MaxFilter {
		return fmt.Errorf("seccomp filter of %d bytes", n)
	}
	if in.Keep < 0 {
		return fmt.Errorf("%d descriptors to keep", in.Keep)
	}
	return nil
}
