// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestBypass_B81_UnaskedParts: a page of an API (status 206 without a byte range) passes,
// with the pieces of a value at its edges masked. A byte range that nobody asked for is
// refused at an endpoint of a provider, and searched the same way elsewhere.
func TestBypass_B81_UnaskedParts(t *testing.T) {
	t.Parallel()
	set := testSet(t)
	half := len(plain) / 2
	for _, tc := range []struct {
		target  Target
		field   string
		value   string
		asked   string
		refused bool
	}{
		{anthropic(), "Content-Range", "0-9/100", "", false},
		{anthropic(), "Content-Range", "items 0-9/100", "", false},
		{anthropic(), "Content-Range", "id abc..def/200", "", false},
		{anthropic(), "Content-Range", "*/*", "", false},
		{anthropic(), "Content-Type", "application/json", "", false},
		{anthropic(), "Content-Range", "items 0-9/100", "id a..b", false}, // which is not sent on
		{anthropic(), "Content-Range", "bytes 0-9/100", "", true},
		{anthropic(), "Content-Range", " Bytes=0-9/100", "", true},
		{anthropic(), "Content-Type", "multipart/byteranges; boundary=x", "", true},
		{anthropic(), "Content-Range", "items 0-9/100", "bytes=0-9", true},
		{anthropic(), "Content-Type", "application/json", "bytes=0-9", true},
		{to("other.example", 443), "Content-Range", "items 0-9/100", "", false},
		{to("other.example", 443), "Content-Range", "bytes 0-9/100", "", false},
		{to("other.example", 443), "Content-Range", "bytes 5-9/100", "bytes=0-9", false},
		{to("other.example", 443), "Content-Type", "multipart/byteranges; boundary=x", "", false},
	} {
		h := http.Header{}
		if tc.asked != "" {
			h.Set("Range", tc.asked)
		}
		for body, want := range map[string]string{
			`[{"id":1}]`:                            `[{"id":1}]`,
			plain[half:] + "\n...\n" + plain[:half]: strings.Repeat("*", len(plain)-half) + "\n...\n" + strings.Repeat("*", half),
			plain[3:10]:                             "*******",
			"a " + plain + " b":                     "a " + strings.Repeat("*", len(plain)) + " b",
			plain[:MinEdge-1] + " ok sk":            plain[:MinEdge-1] + " ok sk",
		} {
			r, err := set.Request(tc.target, Options{}, "/", "", h, "", 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			out, err := r.ResponseBody(http.StatusPartialContent, http.Header{tc.field: {tc.value}}, io.NopCloser(strings.NewReader(body)))
			if tc.refused {
				if e := (*EchoError)(nil); !errors.As(err, &e) {
					t.Errorf("%s, %q after %q: %v", tc.target.Host, tc.value, tc.asked, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %q after %q: %v", tc.target.Host, tc.value, tc.asked, err)
				continue
			}
			got, err := io.ReadAll(out)
			if err != nil || string(got) != want {
				t.Errorf("%s, %q after %q: %q became %q, %v", tc.target.Host, tc.value, tc.asked, body, got, err)
			}
		}
		// What it expands to is searched as well.
		r, err := set.Request(tc.target, Options{}, "/", "", h, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := r.ResponseBody(http.StatusPartialContent, http.Header{tc.field: {tc.value}}, io.NopCloser(strings.NewReader(string(gzipped([]byte(plain)))))); err == nil {
			if got, err := io.ReadAll(out); err == nil {
				t.Errorf("%s, %q: %q passed", tc.target.Host, tc.value, got)
			}
		}
	}
}
