// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

// The process stays in its namespace while its threads create and enter others:
// libcontainer takes /proc/self for the runtime's namespace.
func TestProcessStaysInItsNamespace(t *testing.T) {
	testenv.Require(t, testenv.Root)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// There are enough goroutines that the first thread runs one of them.
	var all sync.WaitGroup
	for range 8 * runtime.GOMAXPROCS(0) {
		all.Go(func() {
			ns, err := New()
			if err != nil {
				t.Error(err)
				return
			}
			defer ns.Close()
			if err := Within(ns, func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("%v: the process is in %s, was in %s", err, after, before)
	}
}
