// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/secret"
)

func secrets() *Secrets {
	return &Secrets{
		Providers: []Provider{
			{Name: "work", Revision: 1, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New("a1"), Revision: 1}, {Key: "B", Name: "b", Value: secret.New("b1"), Revision: 1}}},
			{Name: "other", Revision: 4, Credentials: []Credential{{Key: "C", Name: "c", Value: secret.New("c4"), Revision: 4}}},
		},
		Inference: &Inference{
			File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Provider: "work"}, {Name: "s", Provider: "other"}}},
			Keys: map[string]RouteKey{"r": {Value: secret.New("a1"), Credential: "a", Revision: 1}, "s": {Value: secret.New("c4"), Credential: "c", Revision: 4}},
		},
	}
}

// text is what the values are, newest first, and the routes' keys.
func text(s *Secrets) string {
	var out strings.Builder
	for _, p := range s.Providers {
		fmt.Fprintf(&out, "%s@%d", p.Name, p.Revision)
		for _, c := range p.Credentials {
			fmt.Fprintf(&out, " %s.%d=%s", c.Key, c.Revision, c.Value.Reveal())
		}
		out.WriteString("; ")
	}
	return out.String() + "r=" + s.Inference.Keys["r"].Value.Reveal() + " s=" + s.Inference.Keys["s"].Value.Reveal()
}

func TestApply(t *testing.T) {
	end := time.Now()
	for _, tc := range []struct {
		name string
		u    Update
		want string
	}{
		{
			"new values",
			Update{Name: "work", Revision: 2, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New("a2")}, {Key: "B", Name: "b", Value: secret.New("b2"), Expires: end}}},
			"work@2 A.2=a2 B.2=b2 A.1=a1 B.1=b1; other@4 C.4=c4; r=a2 s=c4",
		},
		{
			"one is gone",
			Update{Name: "work", Revision: 2, Credentials: []Credential{{Key: "B", Name: "b", Value: secret.New("b2")}}},
			"work@2 B.2=b2 A.2= A.1=a1 B.1=b1; other@4 C.4=c4; r= s=c4",
		},
		{
			"one is the sandbox's own",
			Update{Name: "work", Revision: 2, Kept: []string{"a"}, Credentials: []Credential{{Key: "B", Name: "b", Value: secret.New("b2")}}},
			"work@2 B.2=b2 A.1=a1 B.1=b1; other@4 C.4=c4; r=a1 s=c4",
		},
		{
			"known already",
			Update{Name: "work", Revision: 1, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New("x")}}},
			"work@1 A.1=a1 B.1=b1; other@4 C.4=c4; r=a1 s=c4",
		},
		{"deleted", Update{Name: "work", Deleted: true}, "work@1 A.1= B.1=; other@4 C.4=c4; r= s=c4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := secrets()
			before := text(s)
			got, err := s.Apply(&tc.u)
			if err != nil {
				t.Fatal(err)
			}
			if text(got) != tc.want {
				t.Errorf("got  %s\nwant %s", text(got), tc.want)
			}
			if text(s) != before {
				t.Errorf("what was there has changed: %s", text(s))
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	s := secrets()
	if _, err := s.Apply(&Update{Name: "none"}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Apply(&Update{Name: "work", Revision: 2, Credentials: []Credential{{Key: "C", Value: secret.New("x")}}}); err == nil || !strings.Contains(err.Error(), "brings C, which is other's") {
		t.Errorf("error %v", err)
	}
	gone, err := s.Apply(&Update{Name: "work", Deleted: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Apply(&Update{Name: "work", Revision: 9, Credentials: []Credential{{Key: "A", Value: secret.New("another's")}}}); !errors.Is(err, ErrDeleted) {
		t.Errorf("error %v", err)
	}
}

// TestApplyKeepsGenerations: so many as placeholders can name, and no more.
func TestApplyKeepsGenerations(t *testing.T) {
	s := secrets()
	for n := 2; n <= 12; n++ {
		var err error
		if s, err = s.Apply(&Update{Name: "work", Revision: n, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New(fmt.Sprint("a", n))}, {Key: "B", Name: "b", Value: secret.New("b")}}}); err != nil {
			t.Fatal(err)
		}
	}
	var revisions []int
	for _, c := range s.Providers[0].Credentials {
		if c.Key == "A" {
			revisions = append(revisions, c.Revision)
		}
	}
	if len(revisions) != Generations || revisions[0] != 12 || revisions[Generations-1] != 5 {
		t.Errorf("kept %v", revisions)
	}
}

// TestAttach: one more provider, one that is there, one whose key another has, and one
// that takes the key of one that is gone.
func TestAttach(t *testing.T) {
	s := secrets()
	more := &Provider{Name: "more", Revision: 3, Credentials: []Credential{{Key: "D", Name: "d", Value: secret.New("d3"), Revision: 3}}}
	rival := &Provider{Name: "rival", Revision: 1, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New("ra1"), Revision: 1}}}
	attach := func(s *Secrets, p *Provider, want string) *Secrets {
		t.Helper()
		got, err := s.Attach(p)
		if err != nil {
			t.Fatal(err)
		}
		if text(got) != want {
			t.Errorf("got  %s\nwant %s", text(got), want)
		}
		return got
	}
	detach := func(s *Secrets, name string) *Secrets {
		t.Helper()
		got, err := s.Detach(name)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	before := text(s)
	three := attach(s, more, "work@1 A.1=a1 B.1=b1; other@4 C.4=c4; more@3 D.3=d3; r=a1 s=c4")
	attach(three, &Provider{Name: "more", Revision: 9}, text(three))
	if _, err := s.Attach(rival); err == nil || !strings.Contains(err.Error(), "work and rival both bring A: detach work first") {
		t.Errorf("error %v", err)
	}
	if _, err := s.Detach("none"); !errors.Is(err, ErrNotAttached) {
		t.Errorf("error %v", err)
	}
	// The router's routes are the operator's, and keep their keys.
	gone := detach(s, "work")
	if got := text(gone); got != "work@1 A.1= B.1=; other@4 C.4=c4; r=a1 s=c4" || gone.Providers[0].Gone != Detached {
		t.Errorf("%s %q", got, gone.Providers[0].Gone)
	}
	swapped := attach(gone, rival, "work@1 B.1=; other@4 C.4=c4; rival@1 A.1=ra1; r=a1 s=c4")
	// News of what was detached concerns the routes alone, whosever its keys are now.
	news := &Update{Name: "work", Revision: 2, Credentials: []Credential{{Key: "A", Name: "a", Value: secret.New("a2")}}}
	got, err := swapped.Apply(news)
	if err != nil || text(got) != "work@1 B.1=; other@4 C.4=c4; rival@1 A.1=ra1; r=a2 s=c4" {
		t.Errorf("%s, %v", text(got), err)
	}
	back := attach(detach(swapped, "rival"), &s.Providers[0], "other@4 C.4=c4; rival@1; work@1 A.1=a1 B.1=b1; r=a1 s=c4")
	if back.Providers[2].Gone != "" {
		t.Error("what was attached anew is gone")
	}
	// One that was deleted is as new, too, and stays deleted until then.
	dead, err := s.Apply(&Update{Name: "work", Deleted: true})
	if err != nil {
		t.Fatal(err)
	}
	if again := detach(dead, "work"); again.Providers[0].Gone != Deleted {
		t.Errorf("%q", again.Providers[0].Gone)
	}
	attach(dead, &s.Providers[0], "other@4 C.4=c4; work@1 A.1=a1 B.1=b1; r= s=c4")
	if text(s) != before {
		t.Errorf("what was there has changed: %s", text(s))
	}
}
