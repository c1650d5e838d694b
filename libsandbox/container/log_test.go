// SPDX-License-Identifier: Apache-2.0

package container

import "testing"

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"one\ntwö \"quoted\"":      "one\ntwö \"quoted\"",
		"exec \x1b[2J\r\x00\u202e": `exec \x1b[2J\r\x00\u202e`,
		"bad \xff":                 `bad \xff`,
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
