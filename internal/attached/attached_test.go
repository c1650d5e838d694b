// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestBypass_B94_IDOfALink: the ID of a sandbox is the name of its folder, whatever the
// name of the link is. The link of a sandbox that no longer exists is removed.
func TestBypass_B94_IDOfALink(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("n", 255)
	links := filepath.Join(dir, "links")
	if err := os.Mkdir(links, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, id := range map[string]string{"00": "box", "01": "a.b.c", "02": "...", "03": long, "04": "gone"} {
		if id != "gone" {
			if err := os.MkdirAll(filepath.Join(dir, "state", id), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join(dir, "state", id), filepath.Join(links, link)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	found := map[string]string{}
	err := each(links, func(s Sandbox) error {
		mu.Lock()
		defer mu.Unlock()
		found[s.ID] = s.Dir
		return nil
	})
	if err != nil || len(found) != 4 {
		t.Errorf("%v, %v", found, err)
	}
	for _, id := range []string{"box", "a.b.c", "...", long} {
		if found[id] != filepath.Join(dir, "state", id) {
			t.Errorf("%s: %q", id, found[id])
		}
	}
	if _, err := os.Lstat(filepath.Join(links, "04")); err == nil {
		t.Error("the link of a sandbox that is gone remains")
	}
}
