// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Service is a middleware of the operator's: a gRPC server of
// openshell.middleware.v1.SupervisorMiddleware.
type Service struct {
	// Name is what policies call it.
	Name string
	// URL is where it is: https, or http where the operator accepts that nobody
	// checks who answers.
	URL *url.URL
	// Roots are what its certificate is verified with.
	Roots *x509.CertPool
	// MaxBody is the longest body that it is sent, in bytes.
	MaxBody int
	// Timeout bounds a call; 0 is DefaultTimeout.
	Timeout time.Duration
}

// service is a Service and what it has said of itself.
type service struct {
	Service
	client *client

	mu sync.Mutex
	// timeout is the shorter of the operator's and its own; 0 until it is described.
	timeout time.Duration
}

func newService(s Service, dial Dialer) (*service, error) {
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	switch {
	case s.URL == nil || s.URL.Host == "" || s.URL.Scheme != "http" && s.URL.Scheme != "https":
		return nil, errors.New("want an http or https URL")
	case s.MaxBody < 1 || s.MaxBody > MaxBody:
		return nil, fmt.Errorf("the longest body is %d bytes, want 1 to %d", s.MaxBody, MaxBody)
	case s.Timeout < MinTimeout || s.Timeout > MaxTimeout:
		return nil, fmt.Errorf("the timeout is %s, want %s to %s", s.Timeout, MinTimeout, MaxTimeout)
	}
	return &service{Service: s, client: newClient(s.URL, s.Roots, dial)}, nil
}

// describe asks what the service can do, once it answers.
func (s *service) describe(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	known := s.timeout
	s.mu.Unlock()
	if known != 0 {
		return known, nil
	}
	text, err := s.client.call(ctx, methodDescribe, nil, s.Timeout)
	if err != nil {
		return 0, err
	}
	bindings, err := decodeManifest(text)
	if err != nil {
		return 0, codeUndescribed
	}
	timeout, found := s.Timeout, 0
	for _, b := range bindings {
		if b.operation != operationHTTPRequest || b.phase != phasePreCredentials {
			continue // for what is not asked here
		}
		found++
		own, err := parseTimeout(b.timeout)
		if err != nil || b.maxBody < uint64(s.MaxBody) || b.maxBody > MaxBody {
			return 0, codeUndescribed
		}
		if own != 0 {
			timeout = min(timeout, own)
		}
	}
	if found != 1 {
		return 0, codeUndescribed
	}
	s.mu.Lock()
	s.timeout = timeout
	s.mu.Unlock()
	return timeout, nil
}

// parseTimeout reads a number of ms or s; 0 for none.
func parseTimeout(s string) (time.Duration, error) {
	if s = strings.TrimSpace(s); s == "" {
		return 0, nil
	}
	digits, unit := strings.TrimSuffix(s, "s"), time.Second
	if ms, ok := strings.CutSuffix(s, "ms"); ok {
		digits, unit = ms, time.Millisecond
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	d := time.Duration(n) * unit
	if err != nil || digits == s || d < MinTimeout || d > MaxTimeout {
		return 0, fmt.Errorf("timeout %q: want 10ms to 30s", s)
	}
	return d, nil
}

// configError is a configuration that the service refuses, in its words.
type configError struct{ reason string }

func (e *configError) Error() string { return e.reason }

// maxShown bounds what is shown of a service's own words, in bytes.
const maxShown = 512

// validate asks whether a configuration is one of the service's.
func (s *service) validate(ctx context.Context, config []byte) error {
	timeout, err := s.describe(ctx)
	if err != nil {
		return err
	}
	text, err := s.client.call(ctx, methodValidateConfig, appendString(appendBytes(nil, 1, config), 2, s.Name), timeout)
	if err != nil {
		return err
	}
	valid, reason, err := decodeValidation(text)
	if err == nil && !valid {
		err = &configError{strconv.QuoteToASCII(reason[:min(len(reason), maxShown)])}
	}
	return err
}

// attached is a service with the configuration that a policy gives it.
type attached struct {
	*service
	config []byte
}

func (a *attached) limit() int { return a.MaxBody }

func (a *attached) run(ctx context.Context, req *Request, c *call) (int, error) {
	timeout, err := a.describe(ctx)
	if err != nil {
		return 0, err
	}
	message, err := evaluation(req, c, a.config, a.Name)
	if err != nil {
		return 0, err
	}
	text, err := a.client.call(ctx, methodEvaluateRequest, message, timeout)
	if err != nil {
		return 0, err
	}
	got, err := decodeAnswer(text)
	if err != nil {
		return 0, err
	}
	if got.decision == decisionDeny {
		return got.findings, &DeniedError{Code: got.reasonCode}
	}
	if got.hasBody && len(got.body) > a.MaxBody {
		return 0, code("response_body_over_capacity")
	}
	header, err := mutate(req.Header, got.mutations)
	if err != nil {
		return 0, err
	}
	req.Header = header
	if got.hasBody {
		req.Body = got.body
	}
	return got.findings, nil
}
