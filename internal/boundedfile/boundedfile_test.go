// SPDX-License-Identifier: Apache-2.0

package boundedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(file, 4); err != nil || string(b) != "1234" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := Read(file, 3); b != nil || err == nil || !strings.Contains(err.Error(), file+" is larger than 3 bytes") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Read(file+"x", 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
