// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestNumericUser(t *testing.T) {
	for user, want := range map[string]bool{
		"0": true, "1000": true, "1000:1000": true, "4294967295": true,
		"": false, "root": false, "1000:": false, ":5": false, "1000:staff": false, "0:0:0": false, "-1": false, "4294967296": false,
	} {
		if got := numericUser(user); got != want {
			t.Errorf("%q: %t", user, got)
		}
	}
}
