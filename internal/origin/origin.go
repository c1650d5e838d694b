// SPDX-License-Identifier: Apache-2.0

// Package origin fetches credentials from their origins: a file, Vault, a Kubernetes
// Secret, or an endpoint that issues short-lived credentials for long-lived ones. Only the
// refresher uses it: a proxy must not hold long-lived credentials.
//
// No error of this package contains a secret, whatever the other side answers.
package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// Made is the result of a [Source].
type Made struct {
	// Value is the credential. Outputs are further values that were issued with it.
	Value   secret.Secret
	Outputs map[string]secret.Secret
	// Expires is the time when they expire; zero if the other side does not say.
	Expires time.Time
	// Material replaces values of the origin's configuration, such as a refresh token that
	// can be used only once.
	Material map[string]secret.Secret
}

// Source is the origin of a credential.
type Source interface {
	Fetch(ctx context.Context) (*Made, error)
}

// Config contains what all sources need.
type Config struct {
	// Roots are the certificate authorities that verify the other side. nil means the
	// system's. An origin with its own CA file does not use them.
	Roots *x509.CertPool
	// Now returns the current time. It is required.
	Now func() time.Time
}

// Open returns the source for an origin.
func Open(c Config, o *provider.Origin) (Source, error) {
	switch o.Kind {
	case provider.FromFile:
		return file{o.Settings["path"]}, nil
	case provider.FromVault:
		return &vault{c, o}, nil
	case provider.FromKubernetes:
		return &kubernetes{c, o}, nil
	case provider.RefreshToken, provider.ClientCredentials, provider.ServiceAccount:
		return &oauth{c, o}, nil
	case provider.AssumeRole:
		return &assumeRole{c, o}, nil
	}
	return nil, fmt.Errorf("unknown kind of origin %q", o.Kind)
}

// Fetch opens the source of o and fetches from it, with the limits that apply to all
// sources.
func Fetch(ctx context.Context, c Config, o *provider.Origin) (*Made, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	s, err := Open(c, o)
	if err != nil {
		return nil, err
	}
	m, err := s.Fetch(ctx)
	if err != nil {
		return nil, &safeError{text(err, o), err}
	}
	for name, v := range m.all() {
		if err := check(v.Reveal()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	now := c.Now()
	if o.Lifetime > 0 && (m.Expires.IsZero() || m.Expires.Sub(now) > o.Lifetime) {
		m.Expires = now.Add(o.Lifetime)
	}
	if !m.Expires.IsZero() && !now.Before(m.Expires) {
		return nil, errors.New("the new credential has already expired: is the clock right?")
	}
	return m, nil
}

func (m *Made) all() map[string]secret.Secret {
	out := map[string]secret.Secret{"the credential": m.Value}
	for k, v := range m.Outputs {
		out[k] = v
	}
	for k, v := range m.Material {
		out[k] = v
	}
	return out
}

// check returns an error for a text that cannot be a credential. A credential may have
// several lines, as keys do.
func check(v string) error {
	switch {
	case strings.TrimSpace(v) == "":
		return errors.New("it is empty")
	case len(v) > provider.MaxValue:
		return fmt.Errorf("it is larger than %d bytes", provider.MaxValue)
	case strings.ContainsFunc(v, func(r rune) bool {
		return r == unicode.ReplacementChar || unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r'
	}):
		return errors.New("it is not text")
	}
	return nil
}

// client returns a client for a server that receives secrets. It verifies TLS, follows no
// redirects, and ignores the proxy variables of the environment.
func (c Config) client(roots *x509.CertPool) *http.Client {
	if roots == nil {
		roots = c.Roots
	}
	return &http.Client{
		Timeout:       Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
		},
	}
}

// safeError is an error whose text contains no secret. The text of its cause may contain
// one.
type safeError struct {
	text  string
	cause error
}

func (e *safeError) Error() string { return e.text }

// Is matches the cause by identity. The cause's text is never used.
func (e *safeError) Is(target error) bool { return errors.Is(e.cause, target) }

// plain is an error whose text comes from this package.
type plain string

func (e plain) Error() string { return string(e) }

// text returns the parts of an error's text that come from this package or the network. The
// other side's text may quote what it was sent.
func text(err error, o *provider.Origin) string {
	var (
		p    plain
		u    *url.Error
		out  string
		host string
	)
	switch {
	case errors.As(err, &p):
		out = string(p)
	case errors.As(err, &u):
		if at, e := url.Parse(u.URL); e == nil {
			host = at.Host + ": "
		}
		out = "ask " + host + u.Err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		out = fmt.Sprintf("no answer within %s", Timeout)
	default:
		out = "the answer is not what was asked for"
	}
	// The other side may also choose the name of a host or certificate.
	for _, m := range o.Material {
		if v := m.Reveal(); len(v) > 3 && strings.Contains(out, v) {
			return "the other side's error cannot be shown: it holds a secret"
		}
	}
	return clip(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, out))
}

func clip(s string) string {
	if len(s) > maxError {
		return strings.ToValidUTF8(s[:maxError], "") + "…"
	}
	return s
}

// with returns the roots, or only those in the given file: a private cluster or Vault
// usually has its own CA.
func (c Config) with(file string) (*x509.CertPool, error) {
	if file == "" {
		return c.Roots, nil
	}
	pem, err := boundedfile.Read(file, maxAnswer)
	if err != nil {
		return nil, plain("read the other side's CA: " + err.Error())
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, plain(file + " holds no certificate (PEM)")
	}
	return pool, nil
}
