// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/testenv"
)

// cpuTime is what this process used: others may use the machine meanwhile.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkResolve asks again and again for one connection, in a container of a
// number of processes with ten open files each and a cgroup of its own.
func BenchmarkResolve(b *testing.B) {
	for _, processes := range []int{2, 20, 100} {
		b.Run(fmt.Sprintf("%d processes", processes), func(b *testing.B) {
			testenv.Require(b, testenv.Root)
			dir := newCgroup(b, cgroupRoot(b, hierarchy{}))
			c := newContainer(b)
			b.Cleanup(c.kill)
			join(b, dir, c.pid)
			r := c.open()
			c.send("/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s; echo connected; read -r -u 3", slash(c.addr4)))
			c.expect("connected")
			for range processes - 2 {
				c.send("/bin/bash", "-c", "exec 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3; echo idle; exec sleep 1000")
				c.expect("idle")
			}
			conn := c.onlyClient()
			time.Sleep(2 * settled) //nolint:forbidigo // the digest of the test's new program is cached only after this time
			one(b, r, conn)
			before := cpuTime(b)
			for b.Loop() {
				if _, err := r.Resolve(conn.local, conn.remote); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
