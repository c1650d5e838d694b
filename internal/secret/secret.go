// SPDX-License-Identifier: Apache-2.0

// Package secret is the type of every credential in the programs: a value that only
// [Secret.Reveal] gives.
//
// Code that prints, logs or encodes a [Secret], or a value that has one in it at any depth,
// writes [Placeholder] or an address: fmt with every verb, log/slog, encoding/json,
// encoding.TextMarshaler (YAML, XML, map keys) and encoding/gob, which refuses it. fmt
// calls no methods on unexported fields and prints what they hold. Therefore a Secret holds
// a pointer, of which fmt prints the address.
//
// Documents that must carry values to another process are encoded and decoded by proxyapi
// alone (proxyapi.Encode); encoding/json refuses to read a
// Secret. The store of providers writes values into its encrypted files.
//
// The package does not protect the memory of the process: a value is a Go string, is not
// overwritten after use, and is in a core dump (internal/harden prevents those). Values in a
// string, for example what Reveal returned, are printed like any other string: code reveals
// a value where it is sent and keeps no copy.
//
// Packages that keep secrets in their types test them with secrettest.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Placeholder is printed in place of a value.
const Placeholder = "[redacted]"

// Secret is a value that nothing prints. The zero value is no value. Secrets cannot be
// compared with ==, which would compare addresses; see [Secret.Equal].
type Secret struct {
	_ [0]func()
	// value is a pointer because fmt prints the content of unexported fields.
	value *string
}

// New returns the secret with this value.
func New(value string) Secret { return Secret{value: &value} }

// Reveal returns the value, "" for the zero Secret.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no value or an empty one. encoding/json calls it for
// omitzero.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Equal reports whether both have the same value, in a time that depends on the lengths
// alone.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// String returns Placeholder.
func (Secret) String() string { return Placeholder }

// GoString returns Placeholder.
func (Secret) GoString() string { return Placeholder }

// Format writes Placeholder for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Placeholder) }

// LogValue returns Placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalText returns Placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON returns Placeholder.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// UnmarshalJSON fails: a document with a secret is read by proxyapi.Decode. Otherwise a
// document that encoding/json has written would give Placeholder as the value.
func (*Secret) UnmarshalJSON([]byte) error { return errUnmarshal }

// UnmarshalText fails, as UnmarshalJSON does.
func (*Secret) UnmarshalText([]byte) error { return errUnmarshal }

var errUnmarshal = errors.New("a secret is read by proxyapi.Decode alone")
