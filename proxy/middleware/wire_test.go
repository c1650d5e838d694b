// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzAnswer: whatever a service says is read without end or panic, and what is
// accepted keeps the limits.
func FuzzAnswer(f *testing.F) {
	mutation := appendBytes(nil, 1, appendNumber(appendString(appendString(nil, 1, "x-openshell-middleware-a"), 2, "v"), 3, 1))
	whole := appendNumber(nil, 1, decisionAllow)
	whole = appendBytes(whole, 3, []byte("body"))
	whole = appendNumber(whole, 4, 1)
	whole = appendBytes(whole, 5, mutation)
	whole = appendBytes(whole, 6, appendNumber(nil, 3, 7))
	whole = appendString(whole, 8, "reason_code")
	f.Add(whole)
	f.Add(protowire.AppendTag(nil, 1, protowire.StartGroupType))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeManifest(b)
		_, _, _ = decodeValidation(b)
		a, err := decodeAnswer(b)
		if err != nil {
			return
		}
		if a.decision != decisionAllow && a.decision != decisionDeny || len(a.body) > MaxBody || a.findings < 0 || a.reasonCode != "" && !stable(a.reasonCode) {
			t.Errorf("accepted %+v", a)
		}
	})
}

// What was added last stands in the answer that is read.
func TestWholeAnswerIsRead(t *testing.T) {
	mutation := appendBytes(nil, 2, appendString(nil, 1, "x-two"))
	b := appendBytes(appendNumber(nil, 1, decisionDeny), 5, mutation)
	a, err := decodeAnswer(b)
	if err != nil || a.decision != decisionDeny || len(a.mutations) != 1 || !a.mutations[0].remove || a.mutations[0].name != "x-two" {
		t.Errorf("%+v %v", a, err)
	}
}
