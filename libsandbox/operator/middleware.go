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

// Bounds of a middleware service, which are OpenShell's.
const (
	// MaxMiddlewareBody bounds the body that a service can be sent, in bytes.
	MaxMiddlewareBody = 4 << 20
	// minServiceTimeout and maxServiceTimeout bound the timeout of a call.
	minServiceTimeout = 10 * time.Millisecond
	maxServiceTimeout = 30 * time.Second
)

// MiddlewareService is a service that policies may send requests through. The keys are
// OpenShell's. A wrong value is an error of [LoadConfig].
type MiddlewareService struct {
	// Name is the name of the service in policies: 1 to 128 letters, digits and . _ - /. It
	// is required, must not begin with openshell/, and must not be another service's.
	Name string `yaml:"name"`
	// Endpoint is the service's URL, https://HOST:PORT. It is required.
	Endpoint string `yaml:"grpc_endpoint"`
	// InsecureTransport accepts an Endpoint of http, whose server is not verified. The zero
	// value makes http an error.
	InsecureTransport bool `yaml:"allow_insecure_transport"`
	// CAFile is a file of certificates (PEM) by which the service is verified, instead of
	// the certificates of the machine. A file without a certificate is an error when a
	// sandbox is made. The zero value means the certificates of the machine.
	CAFile string `yaml:"tls_ca_cert_path"`
	// MaxBodyBytes bounds the body that the service gets, in bytes: 1 to MaxMiddlewareBody.
	// It is required.
	MaxBodyBytes int `yaml:"max_body_bytes"`
	// Timeout bounds a call: 10ms to 30s, a whole number of ms or s. The zero value means
	// 500ms.
	Timeout string `yaml:"timeout"`
}

var (
	serviceName    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._/-]{1,128}$`) })
	serviceTimeout = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]+(ms|s)$`) })
)

// check returns an error for a wrong value.
func (m *MiddlewareService) check() error {
	u, err := url.Parse(m.Endpoint)
	timeout, badTimeout := m.CallTimeout()
	switch {
	case !serviceName().MatchString(m.Name) || strings.HasPrefix(m.Name, "openshell/"):
		return fmt.Errorf("name %q: want letters, digits, '.', '_', '-' and '/', and no openshell/ at the beginning", m.Name)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("grpc_endpoint %q: want https://HOST:PORT", m.Endpoint)
	case u.Scheme == "http" && !m.InsecureTransport:
		return fmt.Errorf("grpc_endpoint %q: http does not verify the server; use https, or set allow_insecure_transport: true", m.Endpoint)
	case m.MaxBodyBytes < 1 || m.MaxBodyBytes > MaxMiddlewareBody:
		return fmt.Errorf("max_body_bytes is %d, want 1 to %d", m.MaxBodyBytes, MaxMiddlewareBody)
	case badTimeout != nil:
		return badTimeout
	case timeout != 0 && (timeout < minServiceTimeout || timeout > maxServiceTimeout):
		return fmt.Errorf("timeout %s: want 10ms to 30s", m.Timeout)
	}
	return nil
}

// CallTimeout returns the bound on the time of a call. 0 means the proxy's default.
func (m *MiddlewareService) CallTimeout() (time.Duration, error) {
	if m.Timeout == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(m.Timeout)
	if err != nil || !serviceTimeout().MatchString(m.Timeout) {
		return 0, fmt.Errorf("timeout %q: want a whole number of ms or s", m.Timeout)
	}
	return d, nil
}

// checkMiddlewares returns an error for a wrong service, and for two of the same name.
func checkMiddlewares(list []MiddlewareService) error {
	seen := map[string]bool{}
	for i := range list {
		m := &list[i]
		if seen[m.Name] {
			return fmt.Errorf("middlewares[%d]: another service has the name %s", i, m.Name)
		}
		seen[m.Name] = true
		if err := m.check(); err != nil {
			return fmt.Errorf("middlewares[%d]: %w", i, err)
		}
	}
	return nil
}
