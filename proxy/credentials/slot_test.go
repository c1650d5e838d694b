// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/secret"
)

// TestBypass_B65_Placement: a placeholder becomes a value in the header Authorization and in
// the place of its credential, and is refused in every other header, parameter and path: a
// workload cannot put the key where the service shows it.
func TestBypass_B65_Placement(t *testing.T) {
	t.Parallel()
	const value = "the-value-0123456789"
	for name, place := range map[string]Place{
		"none": {}, "header": {Header: "X-Api-Key"}, "query": {Query: "api key"}, "path": {Path: "/bot{credential}/send"},
	} {
		set, err := New(Config{}, []Provider{{
			Name: "p", Endpoints: []Endpoint{{Host: "api.example", Ports: []uint16{443}}},
			Credentials: []Credential{{Key: "K", Value: secret.New(value), Place: place}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		const ours = Marker + "K"
		for where, r := range map[string]struct {
			path, query string
			h           http.Header
			o           Options
			body        string
			home        string // of places: all, or the one that it is
		}{
			"bearer":           {h: http.Header{"Authorization": {"Bearer " + ours}}, home: "all"},
			"basic":            {h: http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+ours))}}, home: "all"},
			"rewritten body":   {o: Options{BodyRewrite: true}, body: `"` + ours + `"`, home: "all"},
			"its header":       {h: http.Header{"X-Api-Key": {ours}}, home: "header"},
			"basic elsewhere":  {h: http.Header{"X-Other": {"Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+ours))}}},
			"another header":   {h: http.Header{"X-Other": {ours}}},
			"cookie":           {h: http.Header{"Cookie": {"a=" + ours}}},
			"its parameter":    {query: "a=b&api+key=" + ours, home: "query"},
			"escaped name":     {query: "api%20key=x" + ours, home: "query"},
			"another":          {query: "q=" + ours},
			"behind its own":   {query: "api+key=x;q=" + ours},
			"a name":           {query: ours + "=api+key"},
			"its path":         {path: "/bot" + ours + "/send/more", home: "path"},
			"another path":     {path: "/x/bot" + ours + "/send"},
			"its path, closed": {path: "/bot" + ours + "/get"},
		} {
			path := r.path
			if path == "" {
				path = "/"
			}
			out, _, err := sent(set, to("api.example", 443), r.o, path, r.query, r.h, jsonCT, r.body)
			if r.home == "all" || r.home == name {
				shown := strings.Contains(out, value) || strings.Contains(out, base64.StdEncoding.EncodeToString([]byte("u:"+value)))
				if err != nil || !shown {
					t.Errorf("%s, %s: %q, %v", name, where, out, err)
				}
				continue
			}
			if err == nil || strings.Contains(out, value) || !strings.Contains(err.Error(), "not the credential's place, which is ") || !strings.Contains(err.Error(), "the header Authorization") {
				t.Errorf("%s, %s: %q, %v", name, where, out, err)
			}
			refusedWith(t, out, err, "credential_injection_failed")
		}
	}
}
