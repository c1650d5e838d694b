// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"testing"

	"openshell.dev/runtime/internal/testenv"
)

func TestHostServesItsChainAndLogs(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h, err := Start(250, "api.example.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	code, err := h.Get(t.Context(), "api.example.test", "/x")
	if err != nil || code != 200 {
		t.Fatalf("GET: %d, %v", code, err)
	}
	if _, err := h.Get(t.Context(), "other.example.test", "/x"); err == nil {
		t.Error("a name outside the certificate was accepted")
	}
	if r := h.Requests(); len(r) != 1 || r[0].Host != "api.example.test" || r[0].Path != "/x" {
		t.Errorf("requests: %+v", r)
	}
	if a := h.Accepted(); len(a) != 2 {
		t.Errorf("accepted: %v", a)
	}
}
