// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	license = "SPDX-License-Identifier: Apache-2.0"
	// bypassClasses is the number of known bypass classes: B1 to B95.
	bypassClasses = 95
)

// files returns the paths of the repository's own files, without build outputs.
func files(t *testing.T, want func(path string) bool) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "build", "shared"}, path) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && want(path) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("no files found")
	}
	return out
}

func isGo(path string) bool { return strings.HasSuffix(path, ".go") }

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// isScript reports whether the file is a shell script, and names its shell.
func isScript(path string, text []byte) (shell string, ok bool) {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case bytes.HasPrefix(first, []byte("#!")) && bytes.Contains(first, []byte("bash")):
		return "bash", true
	case bytes.HasPrefix(first, []byte("#!")) && bytes.HasSuffix(first, []byte("sh")), strings.HasSuffix(path, ".sh"):
		return "sh", true
	}
	return "", false
}

// TestScripts checks the syntax and the licence of shell scripts. The linter checks those of
// Go files.
func TestScripts(t *testing.T) {
	for _, path := range files(t, func(path string) bool { return !isGo(path) && !strings.Contains(path, "testdata") }) {
		text := read(t, path)
		shell, ok := isScript(path, text)
		if !ok {
			continue
		}
		if out, err := exec.Command(shell, "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s -n %s: %v: %s", shell, path, err, out)
		}
		if lines := strings.SplitN(string(text), "\n", 3); len(lines) < 2 || lines[1] != "# "+license {
			t.Errorf("%s: the second line is not # %s", path, license)
		}
	}
}

// strayWords are words that get into a file by accident: paths of one machine, its
// mirrors, signatures of tools. The pattern is spelled so that it does not match itself.
var strayWords = regexp.MustCompile(`(?i)/w[o]rk/|/h[o]me/[a-z]|/tmp/[w]t\b|g[h]cr\.io|q[u]ay\.io|g[c]r\.io|registry-1\.|arti[f]actory|deb\.[d]ebian\.org|proxy\.[g]olang\.org|co-[a]uthored-by|generated [w]ith|^<{7} |^>{7} `)

func TestNoStrayWords(t *testing.T) {
	text := func(path string) bool {
		ext := filepath.Ext(path)
		return slices.Contains([]string{".go", ".sh", ".awk", ".yaml", ".yml", ".md", ".mod"}, ext) || path == "Makefile" || path == filepath.Join(".ci", "run")
	}
	for _, path := range files(t, text) {
		for i, line := range bytes.Split(read(t, path), []byte("\n")) {
			if word := strayWords.Find(line); word != nil {
				t.Errorf("%s:%d: names %q", path, i+1, word)
			}
		}
	}
	for _, bad := range []string{"see /w" + "ork/x", "FROM Gh" + "cr.io/a", "Co-" + "Authored-By: x", strings.Repeat("<", 7) + " HEAD"} {
		if !strayWords.MatchString(bad) {
			t.Errorf("%q was not found", bad)
		}
	}
}

// TestPackages checks that every package has one package comment and a row in the table of
// ARCHITECTURE.md.
func TestPackages(t *testing.T) {
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `?([a-z0-9/-]+)`? \\|").FindAllSubmatch(read(t, "ARCHITECTURE.md"), -1) {
		rows[string(m[1])] = true
	}
	dirs := map[string]bool{}
	for _, path := range files(t, isGo) {
		dirs[filepath.Dir(path)] = true
	}
	delete(dirs, ".") // these tests
	for dir := range dirs {
		if docs := packageComments(t, dir); len(docs) != 1 {
			t.Errorf("%s: package comments in %v, want one", dir, docs)
		}
		if !rows[dir] {
			t.Errorf("ARCHITECTURE.md: the table has no row for %s", dir)
		}
	}
	for row := range rows {
		if _, err := os.Stat(row); row != "package" && row != "room" && err != nil {
			t.Errorf("ARCHITECTURE.md: a row for a missing package: %v", err)
		}
	}
}

func packageComments(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "" {
			docs = append(docs, path)
		}
	}
	return docs
}

// effects are functions that may be called only in some places.
var effects = []struct {
	pkg, name string
	may       func(path, pkg string) bool
	why       string
}{
	{"os", "Exit", inMain, "only a main may end the process"},
	{"log", "Fatal", never, "only a main may end the process"},
	{"log", "Fatalf", never, "only a main may end the process"},
	{"log", "Fatalln", never, "only a main may end the process"},
	{"http", "DefaultClient", inProbe, "it has no timeout and takes its proxy from the environment"},
	{"http", "DefaultTransport", never, "it takes its proxy from the environment"},
	{"http", "Get", never, "it uses DefaultClient"},
	{"http", "Head", never, "it uses DefaultClient"},
	{"http", "Post", never, "it uses DefaultClient"},
	{"http", "PostForm", never, "it uses DefaultClient"},
	{"http", "ListenAndServe", never, "it has no limits"},
	{"os", "Create", inTests, "it follows links and truncates existing files: use OpenFile with O_EXCL, or atomicfile"},
	{"os", "IsNotExist", never, "errors.Is sees through wrapped errors"},
	{"os", "IsExist", never, "errors.Is sees through wrapped errors"},
	{"ioutil", "ReadAll", never, "use io.ReadAll"},
}

func never(string, string) bool   { return false }
func inProbe(path, _ string) bool { return strings.HasPrefix(path, "integration/probe/") } // workloads may do anything
func inTests(path, _ string) bool {
	return strings.HasPrefix(path, "integration/") || strings.HasSuffix(path, "_test.go")
}
func inMain(path, pkg string) bool { return pkg == "main" || strings.HasSuffix(path, "_test.go") }

func TestEffectsHaveOneDoor(t *testing.T) {
	for _, path := range files(t, isGo) {
		for _, effect := range forbiddenEffects(t, path, read(t, path)) {
			t.Error(effect)
		}
	}
	bad := []byte("package p\nimport (\"net/http\"; \"os\")\nfunc f() { os.Exit(http.DefaultClient.Timeout) }\n")
	if got := forbiddenEffects(t, "p.go", bad); len(got) != 2 {
		t.Errorf("found %v, want os.Exit and http.DefaultClient", got)
	}
}

func forbiddenEffects(t *testing.T, path string, text []byte) []string {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		for _, e := range effects {
			if x.Name == e.pkg && sel.Sel.Name == e.name && !e.may(filepath.ToSlash(path), f.Name.Name) {
				out = append(out, fmt.Sprintf("%s: %s.%s: %s", set.Position(sel.Pos()), e.pkg, e.name, e.why))
			}
		}
		return true
	})
	return out
}

var bypassName = regexp.MustCompile(`(?m)^func (TestBypass\w*)`)

// TestNamesOfBypasses checks that tests of bypasses have the number of their class.
func TestNamesOfBypasses(t *testing.T) {
	number := regexp.MustCompile(`^TestBypass_(?:B[0-9]+_)*B([0-9]+)_[A-Z]`)
	for _, path := range files(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		for _, m := range bypassName.FindAllSubmatch(read(t, path), -1) {
			name := string(m[1])
			sub := number.FindStringSubmatch(name)
			if sub == nil {
				t.Errorf("%s: %s: want TestBypass_B<number>_<What>", path, name)
				continue
			}
			if n, err := strconv.Atoi(sub[1]); err != nil || n > bypassClasses {
				t.Errorf("%s: %s: the list ends at B%d", path, name, bypassClasses)
			}
		}
	}
}

// TestPatternsAreCompiledWhenNeeded: a pattern that is compiled at package level costs each start
// of a program milliseconds, and each start of a container starts several programs.
func TestPatternsAreCompiledWhenNeeded(t *testing.T) {
	for _, path := range files(t, func(p string) bool {
		return isGo(p) && !strings.HasSuffix(p, "_test.go") && !strings.HasPrefix(p, "integration/")
	}) {
		f, err := parser.ParseFile(token.NewFileSet(), path, read(t, path), parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			ast.Inspect(g, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "MustCompile" {
					t.Errorf("%s: MustCompile at package level: put it into sync.OnceValue", path)
				}
				_, later := n.(*ast.FuncLit)
				return !later
			})
		}
	}
}

// TestNoBuiltPrograms: a built program belongs in bin/, which git ignores.
func TestNoBuiltPrograms(t *testing.T) {
	for _, path := range files(t, func(string) bool { return true }) {
		if bytes.HasPrefix(read(t, path), []byte("\x7fELF")) {
			t.Errorf("%s is a program", path)
		}
	}
}
