// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestBypass_B66_Conversation: a conversation goes to its model with the placeholders of
// nobody made useless, and byte-exact otherwise, however it is split. Escaped ones, and those
// to other services, are refused.
func TestBypass_B66_Conversation(t *testing.T) {
	t.Parallel()
	const alias = "provider-" + AliasMarker + "KEY"
	for name, tc := range map[string]struct{ body, want string }{
		"one":           {`{"a":"X=` + Marker + `KEY\n"}`, `{"a":"X=openshell:resolve:env_KEY\n"}`},
		"several":       {`["` + Marker + `A","` + Marker + Marker + `B","` + alias + `"]`, `["openshell:resolve:env_A","openshell:resolve:env_openshell:resolve:env_B","provider-OPENSHELL-RESOLVE-ENV_KEY"]`},
		"at the end":    {`"` + Marker, `"openshell:resolve:env_`},
		"none":          {`{"openshell:resolve":"env:A"}`, `{"openshell:resolve":"env:A"}`},
		"issued":        {`{"a":"` + Marker + `GITHUB_TOKEN\n` + alias + `"}`, `{"a":"` + Marker + `GITHUB_TOKEN\nprovider-OPENSHELL-RESOLVE-ENV_KEY"}`},
		"of no key":     {`"` + Marker + `NOBODYS"`, `"openshell:resolve:env_NOBODYS"`},
		"partly hidden": {`"openshell\u003aresolve:env:KEY"`, `"openshell\u003aresolve:env_KEY"`},
	} {
		for split, reader := range map[string]func(io.Reader) io.Reader{
			"one byte": iotest.OneByteReader, "halves": iotest.HalfReader, "error with data": iotest.DataErrReader,
			"whole": func(r io.Reader) io.Reader { return r },
		} {
			for _, filler := range []string{"", strings.Repeat(" ", 4090)} {
				body := filler + tc.body
				r, err := testSet(t).Request(anthropic(), Options{}, "/v1/messages", "", nil, jsonCT, int64(len(body)), reader(strings.NewReader(body)))
				if err != nil {
					t.Fatal(err)
				}
				out, err := io.ReadAll(iotest.HalfReader(r.Body))
				if err != nil || string(out) != filler+tc.want {
					t.Errorf("%s, %s: %v, sent %q, want %q", name, split, err, out, filler+tc.want)
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		to          Target
		contentType string
		body        string
	}{
		"escaped to its end": {anthropic(), jsonCT, `"openshell:resolve:env\u003aKEY"`},
		"no conversation":    {anthropic(), "text/plain", Marker + "KEY"},
		"somebody else's":    {github(), jsonCT, `"` + Marker + `KEY"`},
	} {
		r, err := testSet(t).Request(tc.to, Options{}, "/v1/messages", "", nil, tc.contentType, int64(len(tc.body)), strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(r.Body)
		refusedWith(t, string(out), err, "credential_placeholder_in_request_body")
		if scan(out) {
			t.Errorf("%s: %q left", name, out)
		}
	}
}

func FuzzBlunt(f *testing.F) {
	f.Add([]byte(`{"a":"`+Marker+`KEY"}`), 3)
	f.Add([]byte(Marker+Marker+AliasMarker+`openshell\u003aresolve%3Aenv:K`), 7)
	f.Fuzz(func(t *testing.T, body []byte, at int) {
		if len(body) == 0 || at <= 0 || at > len(body) {
			at = len(body)
		}
		s := &issuedReader{
			src: io.MultiReader(strings.NewReader(string(body[:at])), strings.NewReader(string(body[at:]))),
			r:   &resolver{set: &Set{}}, neutralize: true,
		}
		out, err := io.ReadAll(s)
		if scan(out) {
			t.Fatalf("a marker left: %q", out)
		}
		if err == nil && len(out) != len(body) {
			t.Fatalf("%d bytes of %d left", len(out), len(body))
		}
		for i := range out {
			if out[i] != body[i] && out[i] != neutral {
				t.Fatalf("byte %d of %q became %q", i, body, out[i])
			}
		}
	})
}
