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
	"strings"
	"sync"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
	"openshell.dev/runtime/proxy/inference"
	"openshell.dev/runtime/proxy/upstream"
)

// backendIdle is how long a connection to a backend is kept for the next request.
const backendIdle = 90 * time.Second

// routerFactory makes privacy routers, one after the other. Each has the operator's routes
// of its time. All share connections and the budget that was used so far.
type routerFactory struct {
	change inference.Change
	log    *decisionlog.Log
	// transport is made for the first request: most sandboxes have no routes, and
	// the roots are long to parse.
	transport func() *http.Transport
	meter     inference.Meter
}

func newRouterFactory(dial operatorDialer, roots func() *x509.CertPool, change inference.Change, log *decisionlog.Log) *routerFactory {
	return &routerFactory{change: change, log: log, transport: sync.OnceValue(func() *http.Transport {
		return &http.Transport{
			DialContext:       dial,
			ForceAttemptHTTP2: true, DisableCompression: true, IdleConnTimeout: backendIdle, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots()},
		}
	})}
}

// router is the one of these routes; nil without any.
func (b *routerFactory) router(c *proxyapi.Inference) (*inference.Router, error) {
	if c == nil || len(c.Routes) == 0 {
		return nil, nil
	}
	config := inference.Config{
		Budget: inference.Budget(c.Budget), Meter: &b.meter, Change: b.change,
		Do:     func(req *http.Request) (*http.Response, error) { return b.transport().RoundTrip(req) },
		Record: func(u inference.Usage) { b.log.Record(usage(u)) },
		Scrub:  credentials.Mask,
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
			if route.Auth, err = auth(&k, r.Region); err != nil {
				return nil, fmt.Errorf("route %s: %w", r.Name, err)
			}
		}
		config.Routes = append(config.Routes, route)
	}
	return inference.New(config)
}

// auth is how a backend is told whose request it is.
func auth(k *proxyapi.RouteKey, region string) (inference.Auth, error) {
	a := inference.Auth{Name: k.Name, Value: k.Value, Expires: k.Expires}
	switch k.Style {
	case "bearer":
		a.Kind = inference.BearerAuth
	case "header":
		a.Kind = inference.HeaderAuth
	case "query":
		a.Kind = inference.QueryAuth
	case proxyapi.SigV4:
		keys := credentials.AWSKeys{ID: k.KeyID, Secret: k.Value, Session: k.Session}
		a.Kind = inference.SignedAuth
		// Only the session is ever sent, so it is what an answer might show.
		a.Value = k.Session
		a.Sign = func(req *http.Request, body []byte) error {
			return keys.SignRequest(req, body, bedrockService, region, time.Now())
		}
	default:
		return inference.Auth{}, fmt.Errorf("no way %q to send a credential", k.Style)
	}
	return a, nil
}

// bedrockService is what Bedrock's runtime is called in signatures.
const bedrockService = "bedrock"

// operatorDialer reaches what the operator named, as net.Dialer.DialContext does.
type operatorDialer func(ctx context.Context, network, address string) (net.Conn, error)

// operatorDial reaches the operator's backends and services wherever they are; but in the
// container's own namespace the loopback is the workload's. The names of the machine stand
// for the addresses machine; noMachine is the reason if there are none.
func operatorDial(egress proxyapi.Egress, dial *upstream.Dialer, machine []netip.Addr, noMachine error) operatorDialer {
	check := func(a netip.Addr) error {
		if egress == proxyapi.EgressNamespace && a.IsLoopback() {
			return errors.New("a backend on the loopback is in the sandbox itself: name the host's address")
		}
		return nil
	}
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		host, digits, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return nil, err
		}
		if !policy.IsMachine(strings.ToLower(host)) {
			conn, _, err := dial.Dial(ctx, host, uint16(port), check)
			return conn, err
		}
		err = noMachine
		for _, a := range machine {
			var conn net.Conn
			if conn, _, err = dial.Dial(ctx, a.String(), uint16(port), check); err == nil {
				return conn, nil
			}
		}
		return nil, fmt.Errorf("reach %s: %w", host, err)
	}
}

// applyInference has calls that begin from now on use other routes.
func (w *worker) applyInference(c *proxyapi.Inference) error {
	r, err := w.routers.router(c)
	if err != nil {
		return err
	}
	if r == nil {
		w.sandbox.SetRouter(nil)
		return nil
	}
	w.sandbox.SetRouter(r)
	return nil
}

// usage is a call of a model as a record.
func usage(u inference.Usage) decisionlog.Record {
	verdict := "allow"
	if u.Route == "" {
		verdict = "deny"
	}
	return decisionlog.Record{
		Time: time.Now(), Verdict: verdict, Layer: "inference", Host: policy.RouterHost, Protocol: string(u.Dialect), Method: u.Method, Path: u.Path,
		Rule: u.Route, Reason: u.Error, Middlewares: u.Middlewares, Status: u.Status, Model: u.ModelUsed, TokensIn: u.TokensIn, TokensOut: u.TokensOut, Estimated: u.Estimated,
		BytesIn: u.BytesIn, BytesOut: u.BytesOut, DurationMS: float64(u.Duration.Microseconds()) / 1000,
		FirstByteMS: float64(u.FirstByte.Microseconds()) / 1000,
	}
}
