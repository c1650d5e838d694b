// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// plainWords are phrases that a reader has to read twice, with the plain ones in their place.
// They are matched in whole paragraphs, in which line breaks are spaces.
var plainWords = []struct{ pattern, instead string }{
	{`(?i)\banew\b`, "again, or a new one"},
	{`(?i)\bfor ever\b`, "forever, or without a limit"},
	{`(?i)\bwhereto\b`, "the destination"},
	{`(?i)\b(?:is|are|was|were|be|been|being) led\b`, "goes to, is redirected to"},
	{`(?i)\bmend(?:s|ed|ing)?\b`, "fix"},
	{`(?i)\b(?:tokens?|values?|credentials?|certificates?|keys?|leases?) (?:(?:that|which) ends?|(?:that |which )?(?:has |have )?ended)\b`, "expires"},
	{`(?i)\b(?:become|becomes|became) so\b`, "changes to"},
	// A pronoun in the place of the field's noun.
	{`(?:^|[.!:] )(?:What|Who|Whose|Whom) [^.?!:]*(?:[.:!]|$)`, "the noun"},
	{`(?:^|[.!] )(?:Those|Such|One) (?:that|who|which|of)\b`, "the noun"},
	{`(?i)\b(?:of|to|for|from|by|with|at|about|against|into|after|before|beside|besides|except|is|are|was|were) (?:what|who|whom)\b`, "the noun"},
	{`(?i)(?:[,;:] |\b(?:of|for|to|from|by|with|as|is|not|and|or|than|but|like|into|if|unless) )(?:one|those) (?:that|who|which)\b`, "the noun"},
	{`(?i)\b(?:whatever|whoever|whomever)\b`, "any, every, or the noun"},
	{`(?i)\b(?:of|is|are|and|than|as|to|from|with|by) (?:the |its |his )?` +
		`(?:proxy|workload|sandbox|engine|operator|program|kernel|guard|worker|runtime|container|caller|image|policy|server|client|test|machine|host|user)'s` +
		`(?:[.,;:)]| (?:and|that|which|or|is|are|to|in|of|as)\b)`, "the noun that the genitive is for"},
}

var plainPatterns = sync.OnceValue(func() (all []*regexp.Regexp) {
	for _, w := range plainWords {
		all = append(all, regexp.MustCompile(w.pattern))
	}
	return all
})

var listItem = regexp.MustCompile(`^(?:[-*]|[0-9]+\.) `)

// exceptions are phrases that are right where they are.
var exceptions = []struct{ file, phrase, reason string }{}

// notYetPlain are packages, with their tests, and documents that nobody has read for these
// phrases yet. The list only gets shorter.
var notYetPlain = []string{
	"cmd/openshell",
	"cmd/openshell-proxy",
	"cmd/openshell-runtime",
	"hooks/launch",
	"integration",
	"integration/demo",
	"integration/probe",
	"integration/programs",
	"internal/attached",
	"internal/boundedfile",
	"internal/decisionlog",
	"internal/image",
	"internal/origin",
	"internal/provider",
	"internal/proxyapi",
	"internal/testenv",
	"internal/trust",
	"libsandbox/landlock",
	"libsandbox/netns",
	"libsandbox/seccomp",
	"policy",
	"proxy",
	"proxy/ca",
	"proxy/control",
	"proxy/credentials",
	"proxy/dns",
	"proxy/guard",
	"proxy/identity",
	"proxy/inference",
	"proxy/inspect",
	"proxy/memory",
	"proxy/middleware",
	"proxy/upstream",
}

// A finding is a phrase of plainWords in a file.
type finding struct {
	place, phrase, instead string
}

// notPlain returns the phrases of a paragraph that are not plain.
func notPlain(place, paragraph string) (found []finding) {
	for i, pattern := range plainPatterns() {
		for _, at := range pattern.FindAllStringIndex(paragraph, -1) {
			found = append(found, finding{place, paragraph[max(0, at[0]-30):min(len(paragraph), at[1]+30)], plainWords[i].instead})
		}
	}
	return found
}

// paragraphs calls visit for each paragraph of text, with the line of its beginning. A table's
// cell, a heading and an item of a list are paragraphs. Indented lines are code.
func paragraphs(text string, visit func(line int, paragraph string)) {
	var held []string
	begin, code := 0, false
	flush := func() {
		if len(held) > 0 {
			visit(begin, strings.Join(held, " "))
		}
		held = nil
	}
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		item := listItem.FindString(trimmed)
		switch {
		case strings.HasPrefix(trimmed, "```"):
			flush()
			code = !code
		case code, trimmed == "", strings.HasPrefix(trimmed, "#"), strings.HasPrefix(line, "    "), strings.HasPrefix(line, "\t"):
			flush()
		case strings.HasPrefix(trimmed, "|"):
			flush()
			for cell := range strings.SplitSeq(trimmed, "|") {
				if cell = strings.TrimSpace(cell); cell != "" {
					visit(i+1, cell)
				}
			}
		default:
			if item != "" {
				flush()
			}
			if len(held) == 0 {
				begin = i + 1
			}
			held = append(held, strings.TrimPrefix(trimmed, item))
		}
	}
	flush()
}

// wordsOf returns the phrases of a file that are not plain: of a document, of the comments of a
// Go file and, unless it is a test, of the texts in it that are longer than a word.
func wordsOf(t *testing.T, path string, text []byte) (found []finding) {
	t.Helper()
	if !isGo(path) {
		paragraphs(string(text), func(line int, p string) {
			found = append(found, notPlain(fmt.Sprintf("%s:%d", path, line), p)...)
		})
		return found
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Comments {
		first := set.Position(g.Pos()).Line
		paragraphs(g.Text(), func(line int, p string) {
			found = append(found, notPlain(fmt.Sprintf("%s:%d", path, first+line-1), p)...)
		})
	}
	if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "integration/") {
		return found
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(s, " ") {
				found = append(found, notPlain(set.Position(lit.Pos()).String(), strings.Join(strings.Fields(s), " "))...)
			}
		}
		return true
	})
	return found
}

// TestPlainWords keeps a dialect out of comments, documents, help texts and errors that only its
// authors read without effort.
func TestPlainWords(t *testing.T) {
	used, plain := map[int]bool{}, map[string]bool{}
	for _, name := range notYetPlain {
		plain[name] = true
	}
	for _, path := range files(t, func(path string) bool {
		return (isGo(path) || strings.HasSuffix(path, ".md")) && !strings.Contains(path, "testdata")
	}) {
		where := path
		if isGo(path) {
			where = filepath.Dir(path)
		}
		for _, f := range wordsOf(t, path, read(t, path)) {
			if i := slices.IndexFunc(exceptions, func(e struct{ file, phrase, reason string }) bool {
				return e.file == path && strings.Contains(f.phrase, e.phrase)
			}); i >= 0 {
				used[i] = true
				continue
			}
			if slices.Contains(notYetPlain, where) {
				plain[where] = false
				continue
			}
			t.Errorf("%s: %q: write %s", f.place, f.phrase, f.instead)
		}
	}
	for i, e := range exceptions {
		if !used[i] {
			t.Errorf("the exception for %q in %s is not used: remove it", e.phrase, e.file)
		}
	}
	for name, ok := range plain {
		if ok {
			t.Logf("%s has none of these phrases: remove it from notYetPlain", name)
		}
	}
}

func TestPlainWordsCanFail(t *testing.T) {
	for _, bad := range []string{
		"Tokens are made " + "anew.",
		"it waits for " + "ever",
		"The name is " + "led to the proxy.",
		"What is not listed " + "is refused.",
		"a. Who connects early " + "waits.",
		"One that is gone " + "stays gone.",
		"the list of " + "what it does",
		"The request is " + "what is judged.",
		"It is removed, also by " + "whoever has it.",
		"a connection of the " + "proxy's that is gone",
		"a value that has " + "ended",
	} {
		if len(notPlain("", bad)) == 0 {
			t.Errorf("%q is not found", bad)
		}
		if got := wordsOf(t, "p.go", []byte("package p\n\n// "+strings.ReplaceAll(bad, " ", "\n// ")+"\nvar x = 1\n")); len(got) == 0 {
			t.Errorf("%q is not found in a comment", bad)
		}
	}
	for _, good := range []string{
		"What is a bundle?", "The log says what was decided.", "It knows who connects.", "a file of the proxy's state", "the first one that matches", "keys end with a dot",
	} {
		if got := notPlain("", good); len(got) > 0 {
			t.Errorf("%q is found: %v", good, got)
		}
	}
	if got := wordsOf(t, "cmd/p.go", []byte("package p\n\nvar x = \"made "+"anew at once\"\n")); len(got) != 1 {
		t.Errorf("found %v in a text", got)
	}
	if got := wordsOf(t, "p.md", []byte("| a | made "+"anew |\n\n    made "+"anew\n\n- made\n  "+"anew\n")); len(got) != 2 {
		t.Errorf("found %v in a document", got)
	}
}
