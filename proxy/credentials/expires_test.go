// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/secret"
)

// TestExpired: a value is put in until its end, each revision until its own, and not
// after it.
func TestExpired(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Now().Add(d) }
	handle := strings.Repeat("a", 64)
	s, err := New(Config{AnyPlace: true}, []Provider{{
		Name: "p", Endpoints: []Endpoint{{Host: "api.test", Ports: []uint16{443}}},
		Credentials: []Credential{
			{Key: "K", Value: secret.New("value-1"), Revision: 1, Expires: at(-time.Second)},
			{Key: "K", Value: secret.New("value-3"), Revision: 3, Expires: at(time.Hour)},
			{Key: "K", Value: secret.New("value-2"), Revision: 2},
			{Key: "OLD", Value: secret.New("value-4"), Revision: 1},
			{Key: "OLD", Value: secret.New("value-5"), Revision: 2, Expires: at(-time.Second), Handle: handle},
			{Key: "NEW", Value: secret.New("value-6"), Revision: 1, Expires: at(-time.Second)},
			{Key: "NEW", Value: secret.New("value-7"), Revision: 2},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"K": "value-3", "v1_K": "", "v2_K": "value-2", "v3_K": "value-3", "OLD": "", "v1_OLD": "value-4", "s" + handle + "_OLD": "",
		"NEW": "value-7", "v1_NEW": "",
	} {
		r, err := s.Request(to("api.test", 443), Options{}, "/", "", http.Header{"X-Key": {Marker + key}}, "", 0, nil)
		var u *UnresolvedError
		switch {
		case want == "" && (!errors.As(err, &u) || !strings.Contains(u.Reason, "it expired at ") || strings.Contains(err.Error(), "value-")):
			t.Errorf("%s: error %v", key, err)
		case want != "" && (err != nil || r.Header.Get("X-Key") != want):
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
}

// TestDeletedProvider: its placeholders are known and refused, and what it protected
// stays protected.
func TestDeletedProvider(t *testing.T) {
	s, err := New(Config{AnyPlace: true}, []Provider{{
		Name: "p", Gone: "deleted", ModelAPI: true, Endpoints: []Endpoint{{Host: "api.test", Ports: []uint16{443}}}, AuthHeaders: []string{"X-Key"},
		Credentials: []Credential{{Key: "K", Revision: 2}, {Key: "K", Revision: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Needed(Target{Host: "api.test", Port: 443}) {
		t.Error("the endpoint is not looked into any more")
	}
	for value, want := range map[string]string{
		Marker + "K": "its provider p was deleted", Marker + "v1_K": "its provider p was deleted", "sk-attacker": "not this sandbox's",
	} {
		_, err := s.Request(to("api.test", 443), Options{}, "/", "", http.Header{"X-Key": {value}}, "", 0, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", value, err, want)
		}
	}
}
