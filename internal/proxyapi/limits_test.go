// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"testing"

	"openshell.dev/runtime/policy"
)

// TestMaxText: the client takes every policy that the proxy does.
func TestMaxText(t *testing.T) {
	if MaxText < policy.MaxSize {
		t.Errorf("MaxText is %d, policy.MaxSize %d", MaxText, policy.MaxSize)
	}
}
