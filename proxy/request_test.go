// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"testing"

	"openshell.dev/runtime/policy"
)

// TestRefusalsOfTheRouterAreRecorded: a request for another host on a connection to the
// router is refused and recorded, and the router does not see it.
func TestRefusalsOfTheRouterAreRecorded(t *testing.T) {
	w := newWorld(t, endpoints(everything))
	asked := 0
	w.sandbox.SetRouter(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	c := w.tunnel(policy.RouterHost + ":80")
	if resp, body := ask(t, c, "GET /v1/models HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if r := w.recorded(0); r.Verdict != "deny" || r.Host != policy.RouterHost || r.Status != http.StatusMisdirectedRequest {
		t.Errorf("recorded %+v", r)
	}
	if asked > 0 {
		t.Error("the router was asked")
	}
}

// TestInspectors: the table has the protocols whose requests the policy judges, and only
// text messages of WebSockets have facts of their own.
func TestInspectors(t *testing.T) {
	asked := &policy.HTTP{Method: "GET", Path: "/chat"}
	for _, tc := range []struct {
		protocol policy.Protocol
		text     bool
		want     string
	}{
		{policy.ProtocolNone, true, ""},
		{policy.ProtocolREST, true, ""},
		{policy.ProtocolWebSocket, false, ""},
		{policy.ProtocolWebSocket, true, policy.MethodText},
	} {
		method := ""
		if m := inspectorOf(tc.protocol).Message(asked, tc.text); m != nil {
			method = m.Method
		}
		if method != tc.want || asked.Method != "GET" {
			t.Errorf("%q, text %v: %q, want %q", tc.protocol, tc.text, method, tc.want)
		}
	}
	facts, err := inspectorOf(policy.ProtocolREST).Request(&http.Request{Method: "GET"}, "/a/%2e%2e/b?c=d", &policy.Decision{})
	if err == nil && (facts.Path != "/b" || facts.RawQuery != "c=d") {
		t.Errorf("judged are %+v", facts)
	}
}
