// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// file is a credential in a file. The line feed at the end, which editors add, is removed.
type file struct{ path string }

func (f file) Fetch(context.Context) (*Made, error) {
	text, err := boundedfile.Read(f.path, provider.MaxValue)
	var p *fs.PathError
	switch {
	case errors.As(err, &p):
		return nil, plain(fmt.Sprintf("%s %s: %v", p.Op, p.Path, p.Err))
	case err != nil:
		return nil, plain(err.Error())
	}
	return &Made{Value: secret.New(strings.TrimRight(string(text), "\r\n"))}, nil
}
