// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/inference"
	"openshell.dev/runtime/cmd/openshell-proxy/internal/upstream"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/handoff"
)

// backendIdle is how long a connection to a backend is kept for the next request.
const backendIdle = 90 * time.Second

// newRouter makes the privacy router of the operator's routes; nil without any.
func newRouter(c *handoff.Inference, keys *routeKeys, egress handoff.Egress, dial *upstream.Dialer, roots func() *x509.CertPool, log *decisionlog.Log) (http.Handler, error) {
	if c == nil {
		return nil, nil
	}
	config := inference.Config{
		Budget: inference.Budget(c.Budget),
		Record: func(u inference.Usage) { log.Record(usage(u)) },
	}
	for _, r := range c.Routes {
		base, err := url.Parse(r.BaseURL)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		route := inference.Route{
			Name: r.Name, Dialect: inference.Dialect(r.Dialect), BaseURL: base, Model: r.Model, Match: inference.Match{Models: r.Models, Paths: r.Paths},
			Aliases: r.Aliases, DefaultHeaders: r.Headers, Weight: r.Weight, Reserve: r.Reserve, Fallbacks: r.Fallbacks,
			Timeout: time.Duration(r.TimeoutSeconds) * time.Second, IdleTimeout: time.Duration(r.IdleTimeoutSeconds) * time.Second,
		}
		if k, ok := c.Keys[r.Name]; ok {
			kinds := map[string]inference.AuthKind{"bearer": inference.BearerAuth, "header": inference.HeaderAuth, "query": inference.QueryAuth}
			kind, ok := kinds[k.Style]
			if !ok {
				return nil, fmt.Errorf("route %s: no way %q to send a credential", r.Name, k.Style)
			}
			route.Auth = inference.Auth{Kind: kind, Name: k.Name, Value: keys.of(r.Name, k)}
		}
		config.Routes = append(config.Routes, route)
	}
	// A backend is the operator's, wherever it is; but in the container's own
	// namespace the loopback is the workload's.
	check := func(a netip.Addr) error {
		if egress == handoff.EgressNamespace && a.IsLoopback() {
			return errors.New("a backend on the loopback is in the sandbox itself: name the host's address")
		}
		return nil
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			host, digits, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			port, err := strconv.ParseUint(digits, 10, 16)
			if err != nil {
				return nil, err
			}
			conn, _, err := dial.Dial(ctx, host, uint16(port), check)
			return conn, err
		},
		ForceAttemptHTTP2: true, DisableCompression: true, IdleConnTimeout: backendIdle, MaxResponseHeaderBytes: 64 << 10,
	}
	config.Do = func(req *http.Request) (*http.Response, error) { return transport.RoundTrip(req) }
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots()}
	return inference.New(config)
}

// usage is a call of a model as a record.
func usage(u inference.Usage) decisionlog.Record {
	verdict := "allow"
	if u.Route == "" {
		verdict = "deny"
	}
	return decisionlog.Record{
		Time: time.Now(), Verdict: verdict, Layer: "inference", Host: inference.Host, Protocol: string(u.Dialect), Method: u.Method, Path: u.Path,
		Rule: u.Route, Reason: u.Error, Status: u.Status, Model: u.ModelUsed, TokensIn: u.TokensIn, TokensOut: u.TokensOut, Estimated: u.Estimated,
		BytesIn: u.BytesIn, BytesOut: u.BytesOut, DurationMS: float64(u.Duration.Microseconds()) / 1000,
		FirstByteMS: float64(u.FirstByte.Microseconds()) / 1000,
	}
}
