// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"testing"
)

// The policies that people are given to begin with are valid and mean what they
// say.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../docs/policies/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, found %q, want the policies of docs/policies", err, files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse(file, text)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range Lint(p) {
				t.Errorf("line %d: %s", w.Line, w.Msg)
			}
			if _, err := Compile(p, CompileOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}
