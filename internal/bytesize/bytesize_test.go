// SPDX-License-Identifier: Apache-2.0

package bytesize

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1024": 1024, "64m": 64 << 20, "64M": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "1.5g": 3 << 29, "2 k": 2048, "12b": 12, "1P": 1 << 50,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "-2", "m", "1mm", "0x10", "1e3", "1x", "99999999p", "1.m", ".5", "1\n"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

// FuzzParse checks that a size is never negative.
func FuzzParse(f *testing.F) {
	f.Add("1.5GiB")
	f.Add("99999999p")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := Parse(text); n < 0 || err != nil && n != 0 {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	})
}
