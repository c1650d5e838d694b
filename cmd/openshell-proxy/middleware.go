// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"fmt"
	"net/url"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/proxy/middleware"
)

// newMiddlewares knows the operator's services; none of them is called yet.
func newMiddlewares(c *proxyapi.WorkerConfig, reach operatorDialer, roots func() *x509.CertPool) (*middleware.Runner, error) {
	config := middleware.Config{Sandbox: c.ID, Dial: middleware.Dialer(reach)}
	for _, m := range c.Middlewares {
		u, err := url.Parse(m.URL)
		if err != nil {
			return nil, fmt.Errorf("middleware service %s: %w", m.Name, err)
		}
		s := middleware.Service{Name: m.Name, URL: u, MaxBody: m.MaxBody, Timeout: m.Timeout}
		if len(m.Roots) == 0 {
			s.Roots = roots()
		} else if s.Roots = x509.NewCertPool(); !s.Roots.AppendCertsFromPEM(m.Roots) {
			return nil, fmt.Errorf("middleware service %s: no certificate among its roots", m.Name)
		}
		config.Services = append(config.Services, s)
	}
	return middleware.New(config)
}
