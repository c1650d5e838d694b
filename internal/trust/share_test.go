// SPDX-License-Identifier: Apache-2.0

package trust

import "testing"

// TestShare: of two sandboxes with one root filesystem, only the last removes the folders
// that were made for mounts.
func TestShare(t *testing.T) {
	root := t.TempDir()
	first, err := Share(root)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Share(root)
	if err != nil {
		t.Fatal(err)
	}
	if alone(first) {
		t.Error("the first is alone beside the second")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if !alone(second) {
		t.Error("the second is not alone after the first has ended")
	}
	if _, err := Share(root); err == nil {
		t.Error("a third begins while folders are removed")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Share(t.TempDir() + "/none"); err == nil {
		t.Error("no root filesystem")
	}
}
