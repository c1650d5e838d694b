// SPDX-License-Identifier: Apache-2.0

package header

import (
	"net/http"
	"net/textproto"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	for _, name := range slices.Concat(HopByHop[:], Credentials[:]) {
		if name != textproto.CanonicalMIMEHeaderKey(name) {
			t.Errorf("%s is not spelled as http.Header spells it", name)
		}
	}
}

func TestNominated(t *testing.T) {
	h := http.Header{"Connection": {"close, x-a", " X-B ,,te"}}
	if got, want := Nominated(h), []string{"Close", "X-A", "X-B", "", "Te"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Nominated(http.Header{}); got != nil {
		t.Errorf("got %q", got)
	}
}
