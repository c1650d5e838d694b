// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"crypto/x509"
	"fmt"
	"slices"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// middlewares are the operator's services, among which are all that the policy names.
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
		s := &c.Middlewares[i]
		timeout, err := s.Patience()
		if err != nil {
			return nil, err
		}
		h := proxyapi.Middleware{Name: s.Name, URL: s.Endpoint, MaxBody: s.MaxBodyBytes, Timeout: timeout}
		if s.CAFile != "" {
			if h.Roots, err = boundedfile.Read(s.CAFile, maxBundle); err != nil {
				return nil, fmt.Errorf("middleware service %s: read tls_ca_cert_path: %w", s.Name, err)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(h.Roots) {
				return nil, fmt.Errorf("middleware service %s: tls_ca_cert_path %s: no certificate (PEM) in it", s.Name, s.CAFile)
			}
		}
		out = append(out, h)
	}
	return out, nil
}
