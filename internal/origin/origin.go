// SPDX-License-Identifier: Apache-2.0

// Package origin gets credentials from where they come from: a file, Vault, a
// Kubernetes Secret, or an endpoint that makes short-lived ones out of long-lived
// ones. It is for the refresher alone: what it holds would be too much for a proxy.
//
// No error of it holds a secret, whatever the other side answers.
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
)

// Made is what an origin gave.
type Made struct {
	// Value is the credential's; Outputs are those that were made along.
	Value   provider.Secret
	Outputs map[string]provider.Secret
	// Expires is when they end; zero if the other side does not say.
	Expires time.Time
	// Material takes the place of what the origin had: a refresh token that was
	// exchanged for the next.
	Material map[string]provider.Secret
}

// Source is where a credential comes from.
type Source interface {
	Fetch(ctx context.Context) (*Made, error)
}

// Config is what sources work with.
type Config struct {
	// Roots verify the other sides.
	Roots *x509.CertPool
	// Now is the clock.
	Now func() time.Time
}

// Open finds the source that an origin names.
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
	return nil, fmt.Errorf("no credential comes from %q", o.Kind)
}

// Fetch opens the source of o and asks it, with the limits that hold for all.
func Fetch(ctx context.Context, c Config, o *provider.Origin) (*Made, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
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
		return nil, errors.New("what was made has expired already: is the clock right?")
	}
	return m, nil
}

func (m *Made) all() map[string]provider.Secret {
	out := map[string]provider.Secret{"the credential": m.Value}
	for k, v := range m.Outputs {
		out[k] = v
	}
	for k, v := range m.Material {
		out[k] = v
	}
	return out
}

// check refuses what cannot be a credential. A key of several lines is one.
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

// client speaks to one that is given secrets: verified TLS, no other place than the
// one that was named, no proxy of an environment.
func (c Config) client(roots *x509.CertPool) *http.Client {
	if roots == nil {
		roots = c.Roots
	}
	return &http.Client{
		Timeout:       Patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: dialPatience}).DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, TLSHandshakeTimeout: dialPatience,
			ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
		},
	}
}

// safeError says what went wrong in words that hold no secret; the cause may.
type safeError struct {
	text  string
	cause error
}

func (e *safeError) Error() string { return e.text }

// Is lets a caller know a cause by its identity, never by its words.
func (e *safeError) Is(target error) bool { return errors.Is(e.cause, target) }

// plain is an error whose text is ours.
type plain string

func (e plain) Error() string { return string(e) }

// text is an error's as far as it is ours or that of the network: what the other
// side said may be what it was sent.
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
		out = fmt.Sprintf("no answer within %s", Patience)
	default:
		out = "the answer is not what was asked for"
	}
	// A host's or certificate's name may be chosen by the other side as well.
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

// with are the roots, or those of one file alone: a cluster and a Vault of one's own
// mostly have their own.
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
