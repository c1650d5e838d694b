// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/memory"
)

// answer is a refusal as the client gets it. The shapes are OpenShell's
// (policy-v1, error shapes).
type answer struct {
	status int
	policy string
	body   any
}

type simpleBody struct {
	Error  string `json:"error"`
	Detail string `json:"detail"`
	Reason string `json:"reason,omitempty"`
}

// nestedBody is OpenShell's answer to a placeholder in a body, the only one whose error is an
// object.
type nestedBody struct {
	Error nestedError `json:"error"`
}

type nestedError struct {
	Code    string `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

type ruleBody struct {
	Error       string       `json:"error"`
	Policy      string       `json:"policy"`
	Rule        string       `json:"rule"`
	Detail      string       `json:"detail"`
	Layer       string       `json:"layer"`
	Protocol    string       `json:"protocol"`
	Method      string       `json:"method"`
	Path        string       `json:"path"`
	Host        string       `json:"host"`
	Port        uint16       `json:"port"`
	Binary      string       `json:"binary"`
	RuleMissing *missingRule `json:"rule_missing,omitempty"`
	NextSteps   []string     `json:"next_steps"`
}

// missingRule is the rule that would allow the request.
type missingRule struct {
	Type   string `json:"type"`
	Host   string `json:"host"`
	Port   uint16 `json:"port"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Binary string `json:"binary"`
}

// refusedConnection is the answer to a connection that policy denies; what names
// it, such as CONNECT.
func refusedConnection(what string, to target, reason string) answer {
	reason = decisionlog.OneLine(reason)
	return answer{status: http.StatusForbidden, body: simpleBody{refusalCode(to, reason), fmt.Sprintf("%s %s not permitted by policy", what, to), reason}}
}

// refusalCode returns the error code of a connection that is refused for a reason.
func refusalCode(to target, reason string) string {
	switch {
	case strings.HasPrefix(reason, unseenReason):
		return "middleware_required"
	case reason == policy.BlockedPort(to.port):
		return "ssrf_denied"
	}
	return "policy_denied"
}

// refusedHost is the answer to a request for a host that policy denies. One in
// absolute form is named with its path.
func refusedHost(method string, to target, path string, dec policy.Decision, forward bool) answer {
	a := refusedConnection(method, to, dec.Reason)
	if forward {
		a.body = simpleBody{refusalCode(to, dec.Reason), fmt.Sprintf("%s %s%.512s not permitted by policy", method, to, path), dec.Reason}
	}
	return a
}

// refusedRequest is the answer to a request that rules deny.
func refusedRequest(to target, h *policy.HTTP, dec policy.Decision, binary string, forward bool) answer {
	if forward {
		detail := fmt.Sprintf("%s %s%s denied by L7 policy: %s", h.Method, to, h.Path, dec.Reason)
		return answer{status: http.StatusForbidden, policy: dec.Policy, body: simpleBody{"policy_denied", detail, ""}}
	}
	b := ruleBody{
		Error: "policy_denied", Policy: dec.Policy, Rule: h.Method + " " + h.Path, Detail: dec.Reason,
		Layer: "l7", Protocol: string(cmp.Or(dec.Protocol, policy.ProtocolREST)), Method: h.Method, Path: h.Path, Host: to.host, Port: to.port, Binary: binary,
		NextSteps: []string{"This request is outside the sandbox's policy. Ask whoever runs the sandbox to allow it; trying again, another tool or another way does not change the answer."},
	}
	// With overrides the missing rule may be about one of them.
	if !strings.Contains(dec.Reason, "deny rule") && len(h.Overrides) == 0 {
		b.RuleMissing = &missingRule{"rest_allow", to.host, to.port, h.Method, h.Path, binary}
	}
	return answer{status: http.StatusForbidden, policy: dec.Policy, body: b}
}

// unreachable is the answer when the other side cannot be had, and the decision
// to be recorded with it.
func unreachable(what string, to target, dec policy.Decision, err error) (answer, policy.Decision) {
	var d *destinationError
	switch {
	case errors.As(err, &d):
		return answer{status: http.StatusForbidden, body: simpleBody{"ssrf_denied", fmt.Sprintf("%s %s blocked: %s", what, to, d.detail()), ""}}, denied(dec, err.Error())
	case errors.Is(err, memory.ErrExhausted), errors.Is(err, errCut):
		return outOfMemory(), denied(dec, err.Error())
	case errors.Is(err, errReloaded):
		return refusedConnection(what, to, err.Error()), denied(dec, err.Error())
	}
	err = explained(err)
	dec.Reason = err.Error()
	if strings.Contains(dec.Reason, "header list larger than peer's advertised limit") { // the library's error has no type
		a := badRequest("the request's head is larger than the server takes")
		a.status = http.StatusRequestHeaderFieldsTooLarge
		return a, dec
	}
	code, text := described(err)
	status := http.StatusBadGateway
	if errors.Is(err, errUnprocessed) {
		status = http.StatusServiceUnavailable
	}
	return answer{status: status, body: simpleBody{code, fmt.Sprintf("%s %s: %s", what, to, text), ""}}, dec
}

// detail is what the workload learns; the address stands in the record only.
func (e *destinationError) detail() string {
	if e.reason == policy.ReasonNotInAllowedIPs {
		return "allowed_ips check failed"
	}
	return "internal address"
}

func badRequest(detail string) answer {
	return answer{status: http.StatusBadRequest, body: simpleBody{"invalid_request", detail, ""}}
}

// outOfMemory is the answer to a request for which the proxy has no memory.
func outOfMemory() answer {
	return answer{status: http.StatusServiceUnavailable, body: simpleBody{"memory_exhausted", memory.ErrExhausted.Error(), ""}}
}

func badTarget(detail string) answer {
	return answer{status: http.StatusBadRequest, body: simpleBody{"invalid_request_target", detail, ""}}
}

func wrongAuthority(got string, to target) answer {
	return answer{status: http.StatusForbidden, body: simpleBody{"request_authority_mismatch", fmt.Sprintf("request names %.300q, the connection is for %s", got, to), ""}}
}

func (a answer) encode() []byte {
	b, err := json.Marshal(a.body)
	if err != nil { // of strings and numbers: cannot be
		b = []byte(`{"error":"policy_denied"}`)
	}
	return append(b, '\n')
}

// write sends the answer over HTTP/1 and says that the connection ends.
func (a answer) write(w io.Writer, head bool) error {
	body := a.encode()
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n", a.status, http.StatusText(a.status), len(body))
	if a.policy != "" {
		b.WriteString("X-OpenShell-Policy: " + headerText(a.policy) + "\r\n")
	}
	b.WriteString("\r\n")
	if !head {
		b.Write(body)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// serve sends the answer over HTTP/2.
func (a answer) serve(w http.ResponseWriter) {
	body := a.encode()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if a.policy != "" {
		w.Header().Set("X-OpenShell-Policy", headerText(a.policy))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// headerText makes a policy's key fit for a header.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// refuseRaw resets a connection whose protocol has no place for an answer.
func (c *connection) refuseRaw(to target, dec policy.Decision) {
	dec.Verdict = policy.Deny
	c.record(record{dec: dec, to: to, protocol: "tcp"})
	reset(c.client)
}

// refuse ends a connection that policy denies, in the client's own protocol where
// it speaks HTTP.
func (c *connection) refuse(ctx context.Context, first preface, to target, dec policy.Decision) {
	switch first.Kind {
	case inspect.TLS:
		to.tls = true
		c.refuseTLS(ctx, to, dec)
	case inspect.HTTP1:
		c.record(record{dec: dec, to: to, protocol: "http", status: http.StatusForbidden})
		br := takeReader(&smallReaders, c.client)
		defer giveReader(&smallReaders, br)
		if refusedConnection("HTTP", to, dec.Reason).write(c.client, false) == nil {
			drain(c.client, br)
		}
	default:
		c.refuseRaw(to, dec)
	}
}

// refuseTLS ends the client's TLS here, so that the client reads why and not just
// that.
func (c *connection) refuseTLS(ctx context.Context, to target, dec policy.Decision) {
	c.record(record{dec: dec, to: to, protocol: "tls", status: http.StatusForbidden})
	if err := c.account.Take(ctx, tlsCost+streamCost); err != nil {
		reset(c.client)
		return
	}
	defer c.account.Release(tlsCost + streamCost)
	conn, err := c.accept(ctx, to, known)
	if err != nil {
		reset(c.client)
		return
	}
	defer conn.Close()
	why := refusedConnection("TLS", to, dec.Reason)
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		serveHTTP2(ctx, c, conn, to, nil, &why)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(c.server.timeouts.head))
	br := takeReader(&smallReaders, conn)
	defer giveReader(&smallReaders, br)
	if err := inspect.CheckHead(br, MaxHead); err != nil && !errors.Is(err, inspect.ErrHeadTooLarge) {
		return
	}
	if why.write(conn, false) == nil {
		drain(conn, br)
	}
}

// drain reads a little more of a request that was answered before its end, so that
// the answer is not lost to a reset.
func drain(conn net.Conn, br *bufio.Reader) {
	closeWrite(conn)
	_ = conn.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, br, maxDrain)
}
