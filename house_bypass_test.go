// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUntestedBypasses compares docs/threat-model.md with the tests: each bypass class has
// a test, or the document lists it as untested.
func TestUntestedBypasses(t *testing.T) {
	atoi := func(s []byte) int {
		n, err := strconv.Atoi(string(s))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	tested, listed := map[int]string{}, map[int]bool{}
	test := regexp.MustCompile(`(?m)^func (?:Test|Fuzz)Bypass_((?:B[0-9]+_)+)`)
	number := regexp.MustCompile(`[0-9]+`)
	for _, path := range files(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		for _, m := range test.FindAllSubmatch(read(t, path), -1) {
			for _, n := range number.FindAll(m[1], -1) {
				tested[atoi(n)] = path
			}
		}
	}
	_, list, found := strings.Cut(string(read(t, "docs/threat-model.md")), "\n## Bypass classes\n")
	if !found {
		t.Fatal("docs/threat-model.md has no section Bypass classes")
	}
	class := regexp.MustCompile(`\bB([0-9]+)\b`)
	for line := range strings.Lines(list) {
		if item, _, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(item, "- B") {
			for _, m := range class.FindAllSubmatch([]byte(item), -1) {
				listed[atoi(m[1])] = true
			}
		}
	}
	for n := 1; n <= bypassClasses; n++ {
		switch path, ok := tested[n]; {
		case ok && listed[n]:
			t.Errorf("B%d has a test in %s: remove it from the list in docs/threat-model.md", n, path)
		case !ok && !listed[n]:
			t.Errorf("B%d has no test: list it in docs/threat-model.md", n)
		}
		delete(listed, n)
	}
	for n := range listed {
		t.Errorf("docs/threat-model.md lists B%d, which is not a class", n)
	}
}
