// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// documented is a command line in a document: one that is set off, with what continues
// it, or one in a sentence.
var documented = regexp.MustCompile("(?m)^ {4}openshell (?:.*\\\\\n)*.*$|`openshell [^`]+`")

// The commands and flags that the documents name are there.
func TestDocumentedCommands(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/design/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	count := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range documented.FindAllString(string(text), -1) {
			count++
			line = strings.NewReplacer("`", "", "\\\n", " ", "[", " ", "]", " ", ",", " ").Replace(line)
			for _, wrong := range unknown(strings.Fields(line)[1:]) {
				t.Errorf("%s: %q: there is no %s", file, line, wrong)
			}
		}
	}
	if count < 20 {
		t.Errorf("found %d commands in %v", count, files)
	}
}

// unknown are the words of a command line that are no command and no flag of it.
// Alternatives are written a|b.
func unknown(words []string) (out []string) {
	in := commands()
	cmds := in
	for ; len(words) > 0 && len(in) > 0; words = words[1:] {
		if words[0] == "…" || strings.HasPrefix(words[0], "-") {
			break
		}
		var found []*cli.Command
		for name := range strings.SplitSeq(words[0], "|") {
			i := slices.IndexFunc(in, func(c *cli.Command) bool { return c.HasName(name) })
			if i < 0 {
				return []string{"command " + name}
			}
			found = append(found, in[i])
		}
		cmds, in = found, found[0].Subcommands
	}
	for _, w := range words {
		if w == "--" {
			break
		}
		name := strings.TrimLeft(w, "-")
		name, _, _ = strings.Cut(name, "=")
		for _, c := range cmds {
			known := func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }
			group := func(one *cli.Command) bool { return slices.ContainsFunc(one.Flags, known) }
			if strings.HasPrefix(w, "-") && name != "it" && !slices.ContainsFunc(c.Flags, known) && !slices.ContainsFunc(c.Subcommands, group) {
				out = append(out, "flag "+w+" of "+c.Name)
			}
		}
	}
	return out
}
