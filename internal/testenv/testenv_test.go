// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a test that only records its result.
type recorder struct {
	testing.TB
	ended string
}

func (*recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any)  { r.end("skip: "+format, args) }
func (r *recorder) Fatalf(format string, args ...any) { r.end("fail: "+format, args) }

func (r *recorder) end(format string, args []any) {
	r.ended = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			name    string
			after   time.Duration // when the event happens
			timeout time.Duration
			want    bool
		}{
			{"at once", 0, 0, true},
			{"in time", time.Second, time.Minute, true},
			{"at the last moment", time.Second, time.Second, true},
			{"too late", time.Minute, time.Second, false},
		} {
			began := time.Now()
			if got := Eventually(tc.timeout, func() bool { return time.Since(began) >= tc.after }); got != tc.want {
				t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
			}
			if took := time.Since(began); took < tc.after && tc.want || took > min(tc.after, tc.timeout)+maxPause {
				t.Errorf("%s: took %s", tc.name, took)
			}
		}
	})
}

func TestWhatIsRequiredFailsInsteadOfSkipping(t *testing.T) {
	checks["absent"] = func() error { return errors.New("not here") }
	checks["present"] = func() error { return nil }
	defer delete(checks, "absent")
	defer delete(checks, "present")
	for _, tc := range []struct{ name, required, need, want string }{
		{"present", "present", "present", ""},
		{"absent", "", "absent", "skip: needs absent: not here"},
		{"absent, another required", "present,root", "absent", "skip: needs absent: not here"},
		{"absent, required", "root,absent", "absent", "fail: absent is required (OPENSHELL_TEST_REQUIRE): not here"},
		{"unknown", "", "unknown", `fail: testenv: "unknown" can only be tried: call Lacks where it fails`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(Variable, tc.required)
			r := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Require(r, tc.need)
			}()
			<-done
			if r.ended != tc.want {
				t.Errorf("ended with %q, want %q", r.ended, tc.want)
			}
		})
	}
}
