// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"openshell.dev/runtime/policy"
)

// FuzzEval: each line that says anything has one answer, a decision or an error,
// and a line that is none stops nothing.
func FuzzEval(f *testing.F) {
	p, err := policy.Parse("policy.yaml", []byte("version: 1\nnetwork_policies:\n  a: {endpoints: [{host: api.test, port: 443, protocol: rest, access: read-only}], binaries: [/bin/x]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	e, err := policy.Compile(p, policy.CompileOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"id":1,"host":"api.test","port":443,"binary":"/bin/x","ancestors":["/bin/sh"],"http":{"method":"POST","path":"/a","query":"b=c"}}`))
	f.Add([]byte("{\n\n[]\n{\"id\":{\"a\":null},\"port\":70000}\r\n{\"host\":\"\\u0000\",\"port\":1}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		const last = `{"id":"last","host":"api.test","port":443,"binary":"/bin/x"}`
		want := 1
		for line := range bytes.Lines(in) {
			if len(bytes.TrimSpace(line)) > 0 {
				want++
			}
		}
		var out strings.Builder
		if err := evalLines(e, strings.NewReader(string(in)+"\n"+last), &out); err != nil {
			t.Fatal(err)
		}
		answers := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(answers) != want || !strings.Contains(answers[want-1], `"id":"last","decision":"allow"`) {
			t.Errorf("%d answers to %d lines: %q", len(answers), want, answers)
		}
		for _, a := range answers {
			var one struct{ Decision, Error string }
			if err := json.Unmarshal([]byte(a), &one); err != nil || (one.Decision == "") == (one.Error == "") {
				t.Errorf("answer %q: %v", a, err)
			}
		}
	})
}
