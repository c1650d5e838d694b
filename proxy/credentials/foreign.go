// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"openshell.dev/runtime/proxy/header"
)

var (
	// authQuery are the query parameters from which APIs take credentials: a key in one of
	// them, or in [header.Credentials], is foreign, whoever the provider is.
	authQuery = []string{
		"key", "api_key", "api-key", "apikey", "x-api-key", "access_token", "access-token", "oauth_token", "auth_token", "token", "private_token",
		"subscription-key", "x-amz-credential", "x-amz-signature", "x-amz-security-token", "x-goog-credential", "x-goog-signature", "sig",
	}
	// basicNames are what services want beside a token in Basic: any other name
	// could be a credential itself.
	basicNames = []string{"", "x-access-token", "x-oauth-basic", "oauth2", "oauth2accesstoken", "git", "token", "api", "apikey", "api_key", "__token__", "_json_key", "gitlab-ci-token"}
)

// protocolKey begins a WebSocket subprotocol that carries a key from browsers.
const protocolKey = "openai-insecure-api-key."

// foreign returns where a credential at t may be that is not the sandbox's, and whether a
// request with one is refused. The path does not matter, because another's key does harm on
// any.
func (s *Set) foreign(t Target) (headers, query []string, refused bool) {
	headers, query = header.Credentials[:], authQuery
	for _, p := range s.providers {
		if !p.near(s, t) {
			continue
		}
		refused = refused || p.ModelAPI
		headers = append(slices.Clip(headers), p.AuthHeaders...)
		query = append(slices.Clip(query), p.AuthQuery...)
	}
	return headers, query, refused
}

// modelAPI says whether a model is asked at t.
func (s *Set) modelAPI(t Target) bool {
	return slices.ContainsFunc(s.providers, func(p *provider) bool { return p.ModelAPI && p.near(s, t) })
}

// refuseForeign refuses a request to a model API with a credential that is not a
// placeholder. It removes cookies and empty headers of authentication. h is its own.
func (s *Set) refuseForeign(t Target, query string, h http.Header) error {
	headers, names, refused := s.foreign(t)
	if !refused {
		return nil
	}
	foreign := func(where string) error { return &ForeignCredentialError{Where: where, Host: t.Host} }
	for _, name := range headers {
		if name = textproto.CanonicalMIMEHeaderKey(name); name == "Cookie" {
			continue
		}
		values := h[name]
		if values == nil || len(values) == 1 && ours(values[0]) {
			continue
		}
		if strings.TrimSpace(strings.Join(values, "")) != "" {
			return foreign("header " + name)
		}
		delete(h, name)
	}
	for _, v := range h["Sec-Websocket-Protocol"] {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); strings.HasPrefix(strings.ToLower(item), protocolKey) && !isPlaceholder(item[len(protocolKey):]) {
				return foreign("header Sec-WebSocket-Protocol")
			}
		}
	}
	// Cookies are taken out and not refused: clients send
	// back those of the load balancer in front of the API without being asked.
	if cookies, ok := h["Cookie"]; ok {
		if kept := ourCookies(cookies); kept != "" {
			h["Cookie"] = []string{kept}
		} else {
			delete(h, "Cookie")
		}
	}
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		plain, _ := percentDecode(name)
		decoded, _ := percentDecode(value)
		plain = strings.ToLower(strings.TrimSpace(strings.ReplaceAll(plain, "+", " ")))
		if decoded != "" && !isPlaceholder(decoded) && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, plain) }) {
			return foreign("query " + plain)
		}
	}
	return nil
}

func ourCookies(values []string) string {
	var kept []string
	for _, v := range values {
		for pair := range strings.SplitSeq(v, ";") {
			pair = strings.TrimSpace(pair)
			_, value, _ := strings.Cut(pair, "=")
			if plain, _ := percentDecode(strings.Trim(value, `"`)); isPlaceholder(plain) {
				kept = append(kept, pair)
			}
		}
	}
	return strings.Join(kept, "; ")
}

// ours says whether an authentication header holds one placeholder and nothing
// else that could be a credential.
func ours(value string) bool {
	value = strings.TrimSpace(value)
	if inner, ok := basic(value); ok {
		return ourPair(inner)
	}
	if isPlaceholder(value) {
		return true
	}
	scheme, rest, ok := strings.Cut(value, " ")
	return ok && len(scheme) <= 16 && strings.Trim(scheme, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") == "" &&
		isPlaceholder(strings.TrimSpace(rest))
}

// ourPair says whether a name and password, parted by one of the colons, are ours.
func ourPair(pair string) bool {
	for i := range len(pair) {
		if pair[i] != ':' {
			continue
		}
		user, pass := pair[:i], pair[i+1:]
		if isPlaceholder(user) && (isPlaceholder(pass) || slices.Contains(basicNames, pass)) || isPlaceholder(pass) && slices.Contains(basicNames, user) {
			return true
		}
	}
	return isPlaceholder(pair)
}

// isPlaceholder says whether s is one placeholder and nothing else.
func isPlaceholder(s string) bool {
	if key, ok := strings.CutPrefix(s, Marker); ok {
		return key != "" && strings.IndexFunc(key, func(r rune) bool { return r > 0x7f || !isKey(byte(r)) }) < 0
	}
	_, key, ok := strings.Cut(s, AliasMarker)
	return ok && key != "" && strings.IndexFunc(s, func(r rune) bool { return r > 0x7f || !isToken(byte(r)) }) < 0
}
