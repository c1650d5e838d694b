// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// fake is a TLS server that keeps what it received.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	header []http.Header
	status int
	answer string
	more   http.Header
}

func newFake(t *testing.T, status int, answer string) *fake {
	t.Helper()
	f := &fake{status: status, answer: answer, more: http.Header{"Content-Type": {"application/json"}}}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.forms, f.header = append(f.forms, r.Form), append(f.header, r.Header)
		for k, v := range f.more {
			w.Header()[k] = v
		}
		w.WriteHeader(f.status)
		fmt.Fprint(w, f.answer)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) config() Config {
	pool := x509.NewCertPool()
	pool.AddCert(f.Certificate())
	return Config{Roots: pool, Now: time.Now}
}

// asked returns the form and the header of the only request, or nil if there was none.
func (f *fake) asked(t *testing.T) (url.Values, http.Header) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch len(f.forms) {
	case 0:
		return nil, nil
	case 1:
		return f.forms[0], f.header[0]
	}
	t.Errorf("asked %d times", len(f.forms))
	return f.forms[0], f.header[0]
}
