// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

// Lookups at the same time do not disturb each other, with a holder in a cgroup
// below the container's and every lookup walking down to it.
func TestResolveConcurrently(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := newCgroup(t, cgroupRoot(t, hierarchy{}))
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	c := newContainer(t)
	t.Cleanup(c.kill)
	join(t, dir, c.pid)
	r := c.open()
	conn := c.client(c.self, "role", "dial", c.addr4)
	pid := one(t, r, conn).Pid
	join(t, sub, pid)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				pids, err := r.members.list()
				if err != nil || !pids[pid] {
					t.Errorf("members %v, %v; want %d among them", pids, err, pid)
				}
			}
			for range 5 {
				ps, err := r.Resolve(conn.local, conn.remote)
				if err != nil || len(ps) != 1 || ps[0].Pid != pid {
					t.Errorf("%+v, %v", ps, err)
				}
			}
		})
	}
	wg.Wait()
}
