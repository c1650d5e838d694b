// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOverrides(t *testing.T) {
	for _, tt := range []struct {
		name, method, query string
		header              map[string][]string
		want                []Override
		err                 string
	}{
		{name: "none", query: "a=b&method=GET", header: map[string][]string{"X-A": {"x"}, strings.Repeat("x", 99): {"y"}, "Destination": {"/x"}}},
		{name: "method", header: map[string][]string{"X_Http.method-Override": {" put "}}, want: []Override{{Source: "header X_Http.method-Override", Method: "PUT"}}},
		{name: "empty method", query: "_method=", header: map[string][]string{"X-Http-Method": {""}}},
		{name: "no method", header: map[string][]string{"X-Http-Method": {"GET, PUT"}}, err: `header X-Http-Method: "GET, PUT" is not one method`},
		{name: "parameters", query: "_Method=put&x=y;_httpmethod[]=PATCH&%2524httpMethod=delete", want: []Override{
			{Source: "query parameter _method", Method: "PUT"}, {Source: "query parameter _HttpMethod", Method: "PATCH"}, {Source: "query parameter $httpMethod", Method: "DELETE"},
		}},
		{name: "headers in a parameter", query: "$httpHeaders=x-http-method-override:+PUT", want: []Override{{Source: "header x-http-method-override", Method: "PUT"}}},
		{name: "path", header: map[string][]string{"X-Original-Url": {"/%40a/../b"}}, want: []Override{{Source: "header X-Original-Url", Path: "/b"}}},
		{name: "path with the request's query", query: "a=b", header: map[string][]string{"X-Rewrite-Url": {"/b"}}, want: []Override{{Source: "header X-Rewrite-Url", Path: "/b"}, {Source: "header X-Rewrite-Url", Path: "/b", RawQuery: "a=b"}}},
		{name: "path with a query", query: "a=b", header: map[string][]string{"X-Rewrite-Url": {"/b?c"}}, want: []Override{{Source: "header X-Rewrite-Url", Path: "/b", RawQuery: "c"}, {Source: "header X-Rewrite-Url", Path: "/b", RawQuery: "a=b"}}},
		{name: "URL", header: map[string][]string{"X-Forwarded-Uri": {"https://h/b?c"}}, want: []Override{{Source: "header X-Forwarded-Uri", Path: "/b", RawQuery: "c"}, {Source: "header X-Forwarded-Uri", Path: "/b"}}},
		{name: "URL without a path", header: map[string][]string{"X-Forwarded-Uri": {"https://h"}}, want: []Override{{Source: "header X-Forwarded-Uri", Path: "/"}}},
		{name: "URL in a query", header: map[string][]string{"X-Forwarded-Uri": {"/a?b=https://h/"}}, want: []Override{{Source: "header X-Forwarded-Uri", Path: "/a", RawQuery: "b=https://h/"}, {Source: "header X-Forwarded-Uri", Path: "/a"}}},
		{name: "relative path", header: map[string][]string{"X-Original-Uri": {"b"}}, err: `header X-Original-Uri: path "b": does not begin with /`},
		{name: "empty path", header: map[string][]string{"X-Original-Uri": {""}}, err: "does not begin with /"},
		{name: "path above the root", header: map[string][]string{"X-Original-Uri": {"/../b"}}, err: "leads above the root"},
		{name: "host or path", header: map[string][]string{"X-Original-Uri": {"//h/b"}}, err: `header X-Original-Uri: path "//h/b" begins with //`},
		{name: "odd query", header: map[string][]string{"X-Original-Uri": {"/b?c d"}}, err: `header X-Original-Uri: query "c d" has a byte that must be percent-encoded`},
		{name: "destination", method: "move", header: map[string][]string{"Destination": {"https://h/b"}}, want: []Override{{Source: "header Destination", Path: "/b"}}},
		{name: "many", header: map[string][]string{"X-Http-Method": strings.Split("A A A A A A A A A", " ")}, err: "more than 8 headers and parameters that override the method or the path, the last header X-Http-Method"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Overrides(tt.header, &HTTP{Method: tt.method, Path: "/a", RawQuery: tt.query}, false)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("%v, want %q", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got); err == nil && d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzOverrides(f *testing.F) {
	f.Add("X-HTTP-Method-Override", "PUT", "_method=x")
	f.Add("x_original_url", "https://a/../b?c", "$httpHeaders=x-rewrite-url%3A/a")
	f.Fuzz(func(t *testing.T, name, value, query string) {
		all, err := Overrides(map[string][]string{name: {value}}, &HTTP{Method: "GET", Path: "/", RawQuery: query}, true)
		if err != nil {
			return
		}
		for _, o := range all {
			if o.Source == "" || (o.Method == "") != (o.Path != "") {
				t.Errorf("%+v", o)
			}
			if o.Path == "" {
				continue
			}
			if again, err := CanonicalPath(o.Path, true); err != nil || again != o.Path {
				t.Errorf("%q is not canonical: %q, %v", o.Path, again, err)
			}
		}
	})
}
