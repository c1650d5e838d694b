// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/libsandbox/container"
	"openshell.dev/runtime/libsandbox/operator"
)

// pruneLogs removes logs of ended sandboxes beyond the operator's limits, at most once an
// hour. It does so in the background, while the container is made; wait returns when that
// is done. A failure is only a warning, because old logs are no reason to refuse a sandbox.
func pruneLogs(c *operator.Config) (wait func()) {
	done := make(chan error, 1)
	go func() { done <- decisionlog.PruneDue(c.LogDir, c.LogLimits()) }()
	return func() {
		if err := <-done; err != nil {
			container.Warn(err.Error())
		}
	}
}
