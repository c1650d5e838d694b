// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"testing"

	"github.com/miekg/dns"

	"openshell.dev/runtime/policy"
)

// TestViewsAreSeparate: a question is answered from the view of its asker, an address of one
// view means nothing in the other, and an unknown asker is refused.
func TestViewsAreSeparate(t *testing.T) {
	views := map[string]*View{}
	recorded := map[string]int{}
	for _, asker := range []string{"a", "b"} {
		views[asker] = NewView(ViewConfig{
			MayResolve: func(n string) bool { return n == asker+".example" },
			Record:     func(string, string, bool) { recorded[asker]++ },
		})
	}
	s := New(Config{View: func(a net.Addr) *View { return views[a.(*net.UDPAddr).Zone] }, Normalize: policy.NormalizeHost})
	question := func(asker, name string) *dns.Msg {
		return s.answer(&net.UDPAddr{Zone: asker}, new(dns.Msg).SetQuestion(name, dns.TypeA))
	}
	own := address(t, question("a", "a.example."))
	if n, ok := views["a"].Name(own); !ok || n != "a.example" {
		t.Errorf("%s is %q in the view that gave it", own, n)
	}
	if n, ok := views["b"].Name(own); ok {
		t.Errorf("%s is %q in the other view", own, n)
	}
	if m := question("b", "a.example."); m.Rcode != dns.RcodeNameError {
		t.Errorf("a name of the other view: %v", m)
	}
	if m := question("c", "a.example."); m.Rcode != dns.RcodeRefused || len(m.Answer) > 0 {
		t.Errorf("an unknown asker: %v", m)
	}
	if recorded["a"] != 1 || recorded["b"] != 1 {
		t.Errorf("recorded %v", recorded)
	}
}
