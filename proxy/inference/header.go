// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"openshell.dev/runtime/proxy/header"
)

// framing are the headers that say how a message is sent, not what it is.
var framing = set(append(header.HopByHop[:], "Content-Length", "Host", "Expect", "Accept-Encoding", "Content-Encoding"))

// reserved are those, and the ones that carry credentials.
var reserved = set(slices.AppendSeq(append(header.Credentials[:], "Proxy-Authorization", "Cookie", "Set-Cookie"), maps.Keys(framing)))

// carried are the callers' headers that reach a backend; all others are stripped,
// whatever they are called.
var carried = []string{"Content-Type", "Accept", "User-Agent"}

// carriedFor are those of one dialect's backends.
var carriedFor = map[Dialect][]string{
	OpenAI:    {"Openai-Organization", "X-Model-Id"},
	NVIDIA:    {"X-Model-Id"},
	Anthropic: {"Anthropic-Version", "Anthropic-Beta"},
}

// returned are a backend's headers that reach the caller.
var returned = []string{
	"Content-Type", "Cache-Control", "Retry-After", "Retry-After-Ms", "X-Should-Retry",
	"Request-Id", "X-Request-Id", "X-Amzn-Requestid", "X-Amzn-Errortype", "Openai-Processing-Ms", "Openai-Model",
}

// returnedPrefixes are the begins of more of them.
var returnedPrefixes = []string{"X-Ratelimit-", "Anthropic-Ratelimit-", "X-Amzn-Bedrock-"}

// requestHeader is what r's backend is sent of a caller's header.
func (r *route) requestHeader(from http.Header) http.Header {
	out := make(http.Header, 8)
	for _, k := range slices.Concat(carried, carriedFor[r.Dialect]) {
		if v := from[k]; len(v) > 0 {
			out[k] = slices.Clone(v)
		}
	}
	for k, v := range r.DefaultHeaders {
		if k = http.CanonicalHeaderKey(k); len(out[k]) == 0 {
			out.Set(k, v)
		}
	}
	if r.Dialect == Anthropic && len(out["Anthropic-Version"]) == 0 {
		out.Set("Anthropic-Version", "2023-06-01")
	}
	if len(out["User-Agent"]) == 0 {
		out.Set("User-Agent", "") // or one of the library's is sent
	}
	// An encoded answer could not be followed.
	out.Set("Accept-Encoding", "identity")
	return out
}

// authenticate puts r's credential into a request. No error holds it.
func (r *route) authenticate(req *http.Request, body func() ([]byte, error)) error {
	if r.Auth.expired(time.Now()) {
		return fmt.Errorf("the credential of route %q has expired", r.Name)
	}
	switch r.Auth.Kind {
	case NoAuth:
		return nil
	case SignedAuth:
		b, err := body()
		if err != nil {
			return err
		}
		return r.Auth.Sign(req, b)
	default: // by a value
	}
	v := r.Auth.Value.Reveal()
	if v == "" || len(v) > MaxSecret || !httpguts.ValidHeaderFieldValue(v) || strings.TrimSpace(v) != v {
		return fmt.Errorf("the credential of route %q is empty, too long or not text", r.Name)
	}
	switch r.Auth.Kind {
	case BearerAuth:
		req.Header.Set("Authorization", "Bearer "+v)
	case HeaderAuth:
		req.Header.Set(r.Auth.Name, v)
	case QueryAuth:
		q := req.URL.Query()
		q.Set(r.Auth.Name, v)
		req.URL.RawQuery = q.Encode()
	default:
		return fmt.Errorf("route %q: no way %d to send a credential", r.Name, r.Auth.Kind)
	}
	return nil
}

// expired reports whether the credential cannot be sent any more.
func (a *Auth) expired(now time.Time) bool { return !a.Expires.IsZero() && !now.Before(a.Expires) }

// responseHeader is what a caller is sent of a backend's header.
func (r *route) responseHeader(to, from http.Header) {
	for k, v := range from {
		if !slices.Contains(returned, k) && !slices.ContainsFunc(returnedPrefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			continue
		}
		if slices.ContainsFunc(v, r.Auth.shows) {
			continue
		}
		to[k] = slices.Clone(v)
	}
}

// shows reports whether a text holds the credential, as it is or in an encoding that
// it is sent in.
func (a *Auth) shows(text string) bool {
	for _, form := range a.forms() {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// redact removes the credential from a text for the record.
func (a *Auth) redact(text string) string {
	for _, form := range a.forms() {
		text = strings.ReplaceAll(text, form, "[secret]")
	}
	return text
}

func (a *Auth) forms() []string {
	v := a.Value.Reveal()
	if v == "" {
		return nil
	}
	return []string{v, url.QueryEscape(v), url.PathEscape(v), base64.StdEncoding.EncodeToString([]byte(v))}
}

func set(names []string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out
}
