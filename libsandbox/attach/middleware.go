// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"slices"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// middlewares returns all services of the operator. A policy that names a service which is
// not among them is an error.
func middlewares(c *operator.Config, p *policy.Policy) ([]proxyapi.Middleware, error) {
	for i := range p.Middlewares {
		m := &p.Middlewares[i]
		registered := slices.ContainsFunc(c.Middlewares, func(s operator.MiddlewareService) bool { return s.Name == m.Uses })
		if m.Uses != policy.RegexMiddleware && !registered {
			return nil, fmt.Errorf("network_middlewares.%s (line %d): no service %q is registered in the operator's configuration (middlewares)", m.Key, m.Line, m.Uses)
		}
	}
	var out []proxyapi.Middleware
	for i := range c.Middlewares {
		h, err := middleware(&c.Middlewares[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *h)
	}
	return out, nil
}

// middleware returns what the proxy is told of one service.
func middleware(s *operator.MiddlewareService) (*proxyapi.Middleware, error) {
	timeout, err := s.CallTimeout()
	if err != nil {
		return nil, err
	}
	h := &proxyapi.Middleware{Name: s.Name, URL: s.Endpoint, MaxBody: s.MaxBodyBytes, Timeout: timeout}
	if s.CAFile == "" {
		return h, nil
	}
	h.Roots, err = readCAs(s.CAFile)
	switch {
	case errors.Is(err, errNoCertificate):
		return nil, fmt.Errorf("middleware service %s: tls_ca_cert_path %s: %w", s.Name, s.CAFile, err)
	case err != nil:
		return nil, fmt.Errorf("middleware service %s: read tls_ca_cert_path: %w", s.Name, err)
	}
	return h, nil
}
