// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// bundles are where the distributions keep all certificates they trust in one
// file: Debian and Alpine; Fedora and RHEL; SUSE; OpenELEC; others.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/ssl/cert.pem",
}

// Roots reads what upstreams' certificates are verified with: the system's bundle
// and extra (PEM). It is parsed when it is first needed: parsing takes longer than
// all else that a proxy does to start, and most of the memory.
func Roots(extra []byte) (func() *x509.CertPool, error) {
	added := x509.NewCertPool()
	if len(extra) > 0 && !added.AppendCertsFromPEM(extra) {
		return nil, errors.New("upstream CA files: no certificate in them")
	}
	for _, file := range bundles {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the system's certificates: %w", err)
		}
		return sync.OnceValue(func() *x509.CertPool {
			added.AppendCertsFromPEM(text)
			text = nil
			return added
		}), nil
	}
	// A system that has them in single files.
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	pool.AppendCertsFromPEM(extra)
	return func() *x509.CertPool { return pool }, nil
}
