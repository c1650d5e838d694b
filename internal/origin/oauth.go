// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// oauth exchanges a refresh token, a client secret or a signed assertion for an access
// token at a token endpoint.
type oauth struct {
	c Config
	o *provider.Origin
}

func (s *oauth) get(name string) string {
	if v := s.o.Material[name].Reveal(); v != "" {
		return v
	}
	return s.o.Settings[name]
}

func (s *oauth) Fetch(ctx context.Context) (*Made, error) {
	client := s.c.client(nil)
	way := &bounded{next: client.Transport}
	client.Transport = way
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	style := oauth2.AuthStyleInParams
	if s.o.AuthMethod == provider.SecretBasic {
		style = oauth2.AuthStyleInHeader
	}
	var tokens oauth2.TokenSource
	switch s.o.Kind {
	case provider.RefreshToken:
		c := oauth2.Config{
			ClientID: s.get("client_id"), ClientSecret: s.get("client_secret"), Scopes: s.o.Scopes,
			Endpoint: oauth2.Endpoint{TokenURL: s.o.TokenURL, AuthStyle: style},
		}
		tokens = c.TokenSource(ctx, &oauth2.Token{RefreshToken: s.get("refresh_token")})
	case provider.ClientCredentials:
		c := clientcredentials.Config{
			ClientID: s.get("client_id"), ClientSecret: s.get("client_secret"), Scopes: s.o.Scopes, TokenURL: s.o.TokenURL,
			AuthStyle: style,
		}
		tokens = c.TokenSource(ctx)
	case provider.ServiceAccount:
		subject := s.get("subject")
		if subject == "" {
			subject = s.get("sub")
		}
		c := jwt.Config{
			Email: s.get("client_email"), PrivateKey: []byte(s.get("private_key")), PrivateKeyID: s.get("private_key_id"),
			Subject: subject, Scopes: s.o.Scopes, TokenURL: s.o.TokenURL,
		}
		if s.o.Lifetime > 0 {
			c.Expires = min(s.o.Lifetime, time.Hour) // the longest that Google accepts
		}
		tokens = c.TokenSource(ctx)
	}
	t, err := tokens.Token()
	if way.failed != nil {
		return nil, &url.Error{Op: "ask", URL: s.o.TokenURL, Err: way.failed}
	}
	if err != nil {
		return nil, refused(err)
	}
	if kind := t.Type(); kind != "Bearer" {
		return nil, plain("the token endpoint gave a token that is not a bearer's")
	}
	m := &Made{Value: secret.New(t.AccessToken), Expires: t.Expiry}
	if t.Expiry.IsZero() {
		m.Expires = s.c.Now().Add(usualLifetime)
	}
	if s.o.Kind == provider.RefreshToken && t.RefreshToken != "" && t.RefreshToken != s.get("refresh_token") {
		m.Material = map[string]secret.Secret{"refresh_token": secret.New(t.RefreshToken)}
	}
	return m, nil
}

// codes are the error codes of token endpoints (RFC 6749, 7523) that are passed on. Other
// texts of an endpoint are not: it may quote the request.
var codes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "server_error", "temporarily_unavailable", "invalid_target",
}

// refused returns an error of oauth2 without the response that it quotes.
func refused(err error) error {
	var r *oauth2.RetrieveError
	if errors.As(err, &r) && r.Response != nil {
		said := ""
		if slices.Contains(codes, r.ErrorCode) {
			said = ": " + r.ErrorCode
		}
		return plain(fmt.Sprintf("the token endpoint answers %d%s", r.Response.StatusCode, said))
	}
	if strings.Contains(err.Error(), "private key") {
		return plain("the private key is not one in PEM")
	}
	return err
}

// bounded is a transport that keeps the error of a failed request: oauth2 returns only its
// text.
type bounded struct {
	next   http.RoundTripper
	failed error
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	b.failed = err
	return resp, err
}
