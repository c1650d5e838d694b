// SPDX-License-Identifier: Apache-2.0

// Package boundedfile reads whole files whose size is bounded, whoever wrote them.
package boundedfile

import (
	"fmt"
	"io"
	"os"
)

// Read returns the content of a file, which may have at most most bytes. The error names
// the file.
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
