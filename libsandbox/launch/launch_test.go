// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"openshell.dev/runtime/libsandbox/landlock"
)

// TestInstructions: what Encode returns, Decode reads; what openshell-launch could not use
// is refused on both sides.
func TestInstructions(t *testing.T) {
	in := &Instructions{
		Landlock: landlock.Ruleset{ABI: 7, Handled: 65535, Scoped: 3, Rules: []landlock.Rule{{Path: "/usr", Access: 13, Origin: landlock.OriginPolicy}}, Hard: true},
		Filter:   make([]byte, 2*InstructionSize), Keep: 2,
	}
	text, err := Encode(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decode(text)
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("%+v, %v, want %+v", out, err, in)
	}
	for name, bad := range map[string][]byte{
		"an unknown field":           bytes.Replace(text, []byte(`"keep"`), []byte(`"kept":1,"keep"`), 1),
		"an unknown field of a rule": bytes.Replace(text, []byte(`"path"`), []byte(`"place":1,"path"`), 1),
		"a second document":          append(bytes.Clone(text), text...),
		"half a document":            text[:len(text)/2],
	} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("%s is taken: %s", name, bad)
		}
	}
	for name, bad := range map[string]Instructions{
		"no filter":           {},
		"half an instruction": {Filter: make([]byte, InstructionSize/2)},
		"too long a filter":   {Filter: make([]byte, (MaxFilter+1)*InstructionSize)},
		"a negative Keep":     {Filter: make([]byte, InstructionSize), Keep: -1},
		"too long a document": {Filter: make([]byte, InstructionSize), Landlock: landlock.Ruleset{Rules: []landlock.Rule{{Path: strings.Repeat("x", MaxSize)}}}},
	} {
		if _, err := Encode(&bad); err == nil {
			t.Errorf("%s is encoded", name)
		}
	}
}

// FuzzDecode: instructions that are taken have a filter that the kernel could take, and keep
// no negative number of descriptors.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"landlock":{"abi":7,"handled":65535,"scoped":3,"rules":[{"path":"/usr","access":13}],"hard":true},"filter":"BgAAAAAA/38=","keep":2}`))
	f.Add([]byte(`{"filter":"AA==","keep":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Decode(data)
		if err == nil && (len(in.Filter) == 0 || len(in.Filter)%InstructionSize != 0 || len(in.Filter) > InstructionSize*MaxFilter || in.Keep < 0) {
			t.Errorf("%q is taken as %+v", data, in)
		}
	})
}
