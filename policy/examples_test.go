// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The example policies are valid and decide what their comments say.
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
			pushes := false
			for _, w := range Lint(p, CompileOptions{}) {
				if strings.HasPrefix(w.Msg, "git push is allowed at github.com: ") {
					pushes = true
				} else {
					t.Errorf("line %d: %s", w.Line, w.Msg)
				}
			}
			if want := filepath.Base(file) == "git-push.yaml"; pushes != want {
				t.Errorf("warned of a push: %v, want %v", pushes, want)
			}
			if _, err := Compile(p, CompileOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// policyBlock matches a policy in a document: an indented block in which a line is a
// section of a policy.
var policyBlock = regexp.MustCompile(`(?m)^(?: {4}.*\n|\n)*^ {4}(?:network_policies|filesystem_policy|network_middlewares):.*\n(?:(?: {4}.*)?\n)*`)

// The policies in the documentation are valid.
func TestDocumentedPolicies(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range policyBlock.FindAllString(string(text), -1) {
			found++
			lines := strings.Split(block, "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "    ")
			}
			// A fragment of a policy, or one after commands, begins at its section.
			at := slices.IndexFunc(lines, func(l string) bool {
				return strings.HasPrefix(l, "version: ") || strings.HasSuffix(l, ":") || strings.HasPrefix(l, "# ")
			})
			doc := strings.Join(lines[at:], "\n")
			if !strings.Contains(doc, "version: ") {
				doc = "version: 1\n" + doc
			}
			p, err := Parse(file, []byte(doc))
			if err != nil {
				t.Errorf("%s:\n%s\n%v", file, doc, err)
				continue
			}
			if _, err := Compile(p, CompileOptions{}); err != nil {
				t.Errorf("%s:\n%s\n%v", file, doc, err)
			}
		}
	}
	if found == 0 {
		t.Error("found no policies in the documents, want README.md's")
	}
}
