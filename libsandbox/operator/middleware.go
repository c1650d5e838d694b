// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Bounds of a middleware service, as OpenShell sets them.
const (
	// MaxMiddlewareBody is the longest body that one may be sent, in bytes.
	MaxMiddlewareBody = 4 << 20
	minServiceTimeout = 10 * time.Millisecond
	maxServiceTimeout = 30 * time.Second
)

// MiddlewareService is a service that policies may send requests through. Its keys
// are OpenShell's.
type MiddlewareService struct {
	// Name is what policies call it.
	Name string `yaml:"name"`
	// Endpoint is its URL, of https.
	Endpoint string `yaml:"grpc_endpoint"`
	// InsecureTransport accepts http, with which nobody knows who answers.
	InsecureTransport bool `yaml:"allow_insecure_transport"`
	// CAFile holds the certificates (PEM) that it is verified with in place of the
	// machine's.
	CAFile string `yaml:"tls_ca_cert_path"`
	// MaxBodyBytes is the longest body that it gets.
	MaxBodyBytes int `yaml:"max_body_bytes"`
	// Timeout bounds a call: 10ms to 30s, 500ms if it is empty.
	Timeout string `yaml:"timeout"`
}

var (
	serviceName    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._/-]{1,128}$`) })
	serviceTimeout = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]+(ms|s)$`) })
)

func (m *MiddlewareService) check() error {
	u, err := url.Parse(m.Endpoint)
	timeout, late := m.Patience()
	switch {
	case !serviceName().MatchString(m.Name) || strings.HasPrefix(m.Name, "openshell/"):
		return fmt.Errorf("name %q: want letters, digits, '.', '_', '-' and '/', and not openshell/ in front", m.Name)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("grpc_endpoint %q: want https://HOST:PORT", m.Endpoint)
	case u.Scheme == "http" && !m.InsecureTransport:
		return fmt.Errorf("grpc_endpoint %q: http says nothing of who answers; use https, or write allow_insecure_transport: true", m.Endpoint)
	case m.MaxBodyBytes < 1 || m.MaxBodyBytes > MaxMiddlewareBody:
		return fmt.Errorf("max_body_bytes is %d, want 1 to %d", m.MaxBodyBytes, MaxMiddlewareBody)
	case late != nil:
		return late
	case timeout != 0 && (timeout < minServiceTimeout || timeout > maxServiceTimeout):
		return fmt.Errorf("timeout %s: want 10ms to 30s", m.Timeout)
	}
	return nil
}

// Patience is what a call may take; 0 is the proxy's default.
func (m *MiddlewareService) Patience() (time.Duration, error) {
	if m.Timeout == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(m.Timeout)
	if err != nil || !serviceTimeout().MatchString(m.Timeout) {
		return 0, fmt.Errorf("timeout %q: want a whole number of ms or s", m.Timeout)
	}
	return d, nil
}

func checkMiddlewares(list []MiddlewareService) error {
	seen := map[string]bool{}
	for i := range list {
		m := &list[i]
		if seen[m.Name] {
			return fmt.Errorf("middlewares[%d]: %s is there twice", i, m.Name)
		}
		seen[m.Name] = true
		if err := m.check(); err != nil {
			return fmt.Errorf("middlewares[%d]: %w", i, err)
		}
	}
	return nil
}
