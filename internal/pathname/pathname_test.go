// SPDX-License-Identifier: Apache-2.0

package pathname

import "testing"

func TestBelow(t *testing.T) {
	for _, tc := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true},
	} {
		if Below(tc.path, tc.dir) != tc.want {
			t.Errorf("Below(%q, %q) is %v", tc.path, tc.dir, !tc.want)
		}
	}
}
