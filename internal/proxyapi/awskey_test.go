// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/secret"
)

// The parts of an AWS key change together, and go together.
func TestAWSKeyChanges(t *testing.T) {
	update := func(revision int, id, key, session string) *Update {
		u := &Update{Name: "aws", Revision: revision}
		for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": key, "AWS_SESSION_TOKEN": session} {
			if value != "" {
				u.Credentials = append(u.Credentials, Credential{Key: name, Name: name + "-name", Value: secret.New(value)})
			}
		}
		return u
	}
	first, ok := update(1, "id1", "secret1", "session1").AWSKey()
	if !ok {
		t.Fatal("no key")
	}
	s := &Secrets{Inference: &Inference{
		File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Provider: "aws"}}}, Keys: map[string]RouteKey{"r": *first},
	}}
	for _, tc := range []struct {
		u    *Update
		want RouteKey
	}{
		{update(1, "id0", "secret0", ""), *first}, // nothing newer
		{update(2, "id2", "secret2", ""), RouteKey{Style: SigV4, KeyID: "id2", Value: secret.New("secret2"), Credential: "AWS_SECRET_ACCESS_KEY-name", Revision: 2}},
		{update(3, "id3", "", ""), RouteKey{Style: SigV4, Credential: "AWS_SECRET_ACCESS_KEY-name", Revision: 3}},
		{&Update{Name: "aws", Revision: 4, Deleted: true}, RouteKey{Style: SigV4, Credential: "AWS_SECRET_ACCESS_KEY-name", Revision: 4}},
	} {
		next, err := s.Apply(tc.u)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, next.Inference.Keys["r"]); d != "" {
			t.Error(d)
		}
	}
	if _, ok := update(1, "", "secret", "").AWSKey(); ok {
		t.Error("a key without an ID")
	}
}
