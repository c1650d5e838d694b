// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a value that shows itself in no output: every way to print, log or
// marshal it gives the same text.
type Secret struct {
	// A pointer, so that printing a struct that holds a Secret in an unexported
	// field, where fmt may not call methods, shows an address.
	value *string
}

// NewSecret is the secret with this value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal is the value itself.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String never is the value.
func (s Secret) String() string { return redacted }

// GoString never is the value.
func (s Secret) GoString() string { return redacted }

// Format never writes the value, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue never is the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText never writes the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON never writes the value.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// opaque is embedded where a value is kept as text, to show it in no output.
type opaque struct{}

func (opaque) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (opaque) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (opaque) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// opaqueReader hides what its reader buffers.
type opaqueReader struct {
	opaque
	io.Reader
}
