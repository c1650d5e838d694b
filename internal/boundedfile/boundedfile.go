// SPDX-License-Identifier: Apache-2.0

// Package boundedfile reads files whole that should be small, whoever wrote them.
package boundedfile

import (
	"fmt"
	"io"
	"os"
)

// Read reads a file of at most most bytes. An error names the file.
func Read(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, most)
	}
	return data, nil
}
