// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	codeRow  = regexp.MustCompile("^\\| `([a-z_]+)` \\| ([0-9, ]+) \\| .")
	statuses = map[string]int{
		"StatusForbidden": http.StatusForbidden, "StatusBadRequest": http.StatusBadRequest, "StatusServiceUnavailable": http.StatusServiceUnavailable,
		"StatusInternalServerError": http.StatusInternalServerError, "StatusBadGateway": http.StatusBadGateway,
	}
)

// TestErrorCodes compares the table of error codes in docs/policy.md with the code: every
// value of the field error, and each status that stands beside one.
func TestErrorCodes(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if m := codeRow.FindStringSubmatch(line); m != nil {
			documented[m[1]] = strings.Split(m[2], ", ")
		}
	}
	used := map[string][]string{}
	for _, dir := range []string{".", "credentials"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				codesOf(t, file, used)
			}
		}
	}
	if len(used) < 15 {
		t.Fatalf("only %d codes are found", len(used))
	}
	for code, with := range used {
		if documented[code] == nil {
			t.Errorf("docs/policy.md does not list %s", code)
		}
		for _, status := range with {
			if !slices.Contains(documented[code], status) {
				t.Errorf("docs/policy.md: %s comes with %s, too", code, status)
			}
		}
	}
	for _, code := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := used[code]; !ok {
			t.Errorf("docs/policy.md lists %s, which nothing answers", code)
		}
	}
}

// codesOf collects the error codes of a file, with the statuses in the same literal or
// beside them.
func codesOf(t *testing.T, file string, used map[string][]string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(e ast.Expr, status ...string) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if code, _ := strconv.Unquote(lit.Value); code != "" {
				used[code] = append(used[code], status...)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			var status []string
			for _, e := range n.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					continue
				}
				switch key, _ := kv.Key.(*ast.Ident); {
				case key == nil:
				case key.Name == "status":
					if s, ok := kv.Value.(*ast.SelectorExpr); ok && statuses[s.Sel.Name] != 0 {
						status = append(status, strconv.Itoa(statuses[s.Sel.Name]))
					}
				case key.Name == "body":
					if body, ok := kv.Value.(*ast.CompositeLit); ok && len(body.Elts) > 0 {
						add(body.Elts[0], status...)
					}
				case key.Name == "Error":
					add(kv.Value)
				}
			}
			if name, ok := n.Type.(*ast.Ident); ok && name.Name == "simpleBody" && len(n.Elts) > 0 {
				add(n.Elts[0])
			}
		case *ast.FuncDecl: // Code of a refusal, and functions that choose a code
			if n.Name.Name != "Code" && n.Name.Name != "refusalCode" {
				return true
			}
			ast.Inspect(n, func(n ast.Node) bool {
				if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
					add(r.Results[0])
				}
				return true
			})
		case *ast.AssignStmt: // b.Error = …
			for i, left := range n.Lhs {
				if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Error" && i < len(n.Rhs) {
					add(n.Rhs[i])
				}
			}
		case *ast.ValueSpec: // the constants of ends.go
			for i, name := range n.Names {
				if strings.HasSuffix(name.Name, "Code") && i < len(n.Values) {
					add(n.Values[i])
				}
			}
		}
		return true
	})
}
