// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "openshell.dev/runtime/"

// pkg is a package, as `go list -json` prints it.
type pkg struct {
	ImportPath, Name, Doc, Dir string
	Standard                   bool
	GoFiles, CgoFiles          []string
	TestGoFiles, XTestGoFiles  []string
	Imports, Deps              []string
}

// local returns the package's path below the module, "" for a package of another module.
func (p *pkg) local() string {
	rest, ok := strings.CutPrefix(p.ImportPath, module)
	if !ok {
		return ""
	}
	return rest
}

// packages lists the module's packages and all their dependencies, by import path.
func packages(t *testing.T, env ...string) map[string]*pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json", "-tags", "seccomp", "./...")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]*pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all[p.ImportPath] = &p
	}
}

// importRule lists the packages that the matching packages may not import. Patterns are
// those of path.Match; a last /... means all packages below. The patterns of of and only have
// no module path.
type importRule struct {
	of string
	// reach are packages that may not be dependencies, direct or indirect.
	reach []string
	// direct are packages that the source itself may not import. A library may import them.
	direct []string
	// only, if it is not empty, lists the only packages of this module that may be dependencies.
	only []string
	why  string
}

var (
	runc     = "github.com/opencontainers/runc/..."
	netlinks = []string{"github.com/vishvananda/...", "github.com/mdlayher/...", "github.com/google/nftables/..."}
	logs     = []string{"log", "log/slog"}
	hands    = append([]string{"os", "os/exec", "os/signal", "net", "net/http", "context", "time", "syscall", "golang.org/x/sys/unix"}, logs...)
)

var importRules = []importRule{
	{
		of: "policy", reach: []string{module + "..."}, direct: hands,
		why: "a judge without effects gives the same answer in the proxy, the CLI and a test",
	},
	{
		of: "libsandbox/plan", reach: append([]string{runc, "C"}, netlinks...), direct: hands,
		why: "a plan must be printable on a laptop",
	},
	{
		of: "libsandbox/landlock", reach: append([]string{runc, "C"}, netlinks...), direct: append(hands, netlinks...),
		why: "a ruleset is a value",
	},
	{
		of: "libsandbox/seccomp", reach: []string{runc, module + "..."}, direct: append(hands, netlinks...),
		why: "the table is data; the code that compiles it is behind cgo",
	},
	{of: "libsandbox/features", reach: []string{module + "policy", module + "libsandbox/plan"}, why: "the features of a machine do not depend on a policy"},
	{
		of: "libsandbox/container", reach: []string{module + "policy", module + "libsandbox/plan", module + "libsandbox/netns"},
		why: "a plain adapter: replacing runc must touch one package",
	},
	{
		of: "libsandbox/attach", reach: append([]string{runc, "C", module + "libsandbox/container", module + "libsandbox/netns", module + "libsandbox/state"}, netlinks...),
		why: "the document of a proxy is prepared without a container, so that it can also be prepared for an existing container",
	},
	{
		// libsandbox/launch has the type of its instructions, which the runtime writes.
		of: "hooks/launch", only: []string{"hooks/launch", "libsandbox/landlock", "libsandbox/launch"},
		reach: append([]string{runc, "C", "gopkg.in/...", "log/slog", "net/http"}, netlinks...),
		why:   "the program that runs inside the container must be as small as possible",
	},
	{
		of: "libsandbox/launch", only: []string{"libsandbox/launch", "libsandbox/landlock"},
		direct: hands,
		why:    "it is part of hooks/launch",
	},
	{
		of: "proxy/inspect", reach: []string{module + "policy"}, direct: append(hands, "crypto/tls"),
		why: "parsers see bytes only, so that they can be fuzzed",
	},
	{of: "proxy/identity", only: []string{"proxy/identity"}, why: "leaves report facts; only proxy combines them with decisions"},
	{of: "proxy/upstream", only: []string{"proxy/upstream"}, why: "leaves report facts; only proxy combines them with decisions"},
	{of: "proxy/ca", only: []string{"proxy/ca"}, why: "leaves report facts; only proxy combines them with decisions"},
	{
		of: "proxy/...", reach: []string{module + "cmd/...", module + "libsandbox/...", module + "hooks/...", runc, "C", "golang.org/x/net/publicsuffix"},
		why: "the proxy must stay small and static, and usable without its command",
	},
	{
		of: "cmd/openshell-proxy", reach: []string{module + "libsandbox/...", module + "hooks/...", runc, "C", "golang.org/x/net/publicsuffix"},
		why: "the proxy must stay small and static",
	},
	{of: "libsandbox/...", reach: []string{module + "proxy/...", module + "cmd/..."}, why: "the proxy is another process: internal has everything that both must know"},
	{
		of: "cmd/openshell", reach: []string{module + "libsandbox/container", module + "hooks/...", runc, "C"},
		why: "it must build anywhere; it talks to the runtime by running it",
	},
	{of: "internal/...", reach: []string{module + "libsandbox/...", module + "proxy/...", module + "cmd/...", runc, "C"}, why: "code that all programs share depends on none of them"},
}

// onlyImporters are packages with the only packages that may import them.
var onlyImporters = []struct {
	of   string
	may  []string
	door string
}{
	{runc, []string{"libsandbox/container", "cmd/openshell-runtime"}, "runc's library"},
	{"github.com/sirupsen/logrus", []string{"libsandbox/container"}, "runc's log"},
	{"github.com/seccomp/libseccomp-golang", []string{"libsandbox/seccomp"}, "libseccomp"},
	{module + "internal/origin", []string{"internal/refresh", "cmd/openshell-refresher"}, "the code that obtains tokens"},
	{"golang.org/x/net/publicsuffix", []string{"cmd/openshell"}, "the public suffix list, a table that no other program needs"},
	{module + "internal/refresh", []string{"cmd/openshell-refresher"}, "the code that uses refresh tokens"},
	{"C", nil, "cgo of our own"},
}

// matches reports whether pattern matches imported: exactly, by path.Match, or by
// the prefix before /....
func matches(pattern, imported string) bool {
	if above, ok := strings.CutSuffix(pattern, "/..."); ok {
		return imported == above || strings.HasPrefix(imported, above+"/")
	}
	ok, err := path.Match(pattern, imported)
	return ok && err == nil
}

func matchesAny(patterns []string, imported string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, imported) })
}

// broken returns the dependencies of p that r forbids.
func (r importRule) broken(all map[string]*pkg, p *pkg) []string {
	var out []string
	for _, dep := range p.Deps {
		local := ""
		if d := all[dep]; d != nil {
			local = d.local()
		}
		self := local != "" && matches(r.of, local)
		if (!self && matchesAny(r.reach, dep)) || (len(r.only) > 0 && local != "" && !matchesAny(r.only, local)) {
			out = append(out, "needs "+dep)
		}
	}
	for _, dep := range p.Imports {
		if matchesAny(r.direct, dep) || (dep == "C" && matchesAny(r.reach, dep)) {
			out = append(out, "imports "+dep)
		}
	}
	return out
}

// TestImports checks the direction of imports.
func TestImports(t *testing.T) {
	// static has the files that a program without cgo is built from.
	all := packages(t)
	static := packages(t, "CGO_ENABLED=0")
	for _, r := range importRules {
		t.Run(r.of, func(t *testing.T) {
			found := false
			for _, p := range static {
				if local := p.local(); local == "" || !matches(r.of, local) {
					continue
				}
				found = true
				for _, dep := range r.broken(static, p) {
					t.Errorf("%s %s: %s", p.ImportPath, dep, r.why)
				}
				if cgo := all[p.ImportPath]; cgo != nil && matchesAny(r.reach, "C") && len(cgo.CgoFiles) > 0 {
					t.Errorf("%s has cgo files %v: %s", p.ImportPath, cgo.CgoFiles, r.why)
				}
			}
			if !found {
				t.Errorf("no package matches %s: correct the table", r.of)
			}
		})
	}
	for _, o := range onlyImporters {
		t.Run("importers of "+o.of, func(t *testing.T) {
			for _, p := range all {
				local := p.local()
				if local == "" || slices.Contains(o.may, local) {
					continue
				}
				for _, dep := range p.Imports {
					if matches(o.of, dep) {
						t.Errorf("%s imports %s: only %v may import %s", p.ImportPath, dep, o.may, o.door)
					}
				}
			}
		})
	}
}

// TestImportRulesCanFail breaks a rule in each possible way.
func TestImportRulesCanFail(t *testing.T) {
	all := map[string]*pkg{module + "b": {ImportPath: module + "b"}}
	p := &pkg{ImportPath: module + "a", Imports: []string{module + "b", "C"}, Deps: []string{module + "b", "github.com/x/y"}}
	for name, r := range map[string]importRule{
		"a package reached":                     {of: "a", reach: []string{"github.com/x/..."}},
		"a package imported":                    {of: "a", direct: []string{module + "b"}},
		"a package of this module, not in only": {of: "a", only: []string{"a"}},
		"C":                                     {of: "a", reach: []string{"C"}},
		"all packages of this module are excluded": {of: "a", reach: []string{module + "..."}},
	} {
		if len(r.broken(all, p)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	if bad := (importRule{of: "a", reach: []string{"github.com/z/..."}, direct: []string{"os"}, only: []string{"a", "b"}}).broken(all, p); len(bad) > 0 {
		t.Errorf("found %v where nothing is broken", bad)
	}
}
