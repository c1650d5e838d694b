// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"fmt"
	"io"
	"log/slog"

	"openshell.dev/runtime/internal/secret"
)

// opaque is embedded where a value is kept as text, to show it in no output.
type opaque struct{}

func (opaque) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, secret.Placeholder) }
func (opaque) LogValue() slog.Value         { return slog.StringValue(secret.Placeholder) }
func (opaque) MarshalText() ([]byte, error) { return []byte(secret.Placeholder), nil }

// opaqueReader hides what its reader buffers.
type opaqueReader struct {
	opaque
	io.Reader
}
