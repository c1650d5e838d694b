// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// FuzzDecode: instructions that are taken have a filter the kernel could take and
// keep no descriptor back that was not named.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"landlock":{"abi":7,"handled":65535,"scoped":3,"rules":[{"path":"/usr","access":13}],"hard":true},"filter":"BgAAAAAA/38=","keep":2}`))
	f.Add([]byte(`{"filter":"AA==","keep":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := decode(data)
		if err == nil && (len(in.Filter) == 0 || len(in.Filter)%8 != 0 || len(in.Filter) > 8*maxFilter || in.Keep < 0) {
			t.Errorf("%q is taken as %+v", data, in)
		}
	})
}
