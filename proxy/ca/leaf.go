// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// leaves is the cache. All leaves have one key: making one costs more than
// signing, and whoever could read one could read all.
type leaves struct {
	key   *ecdsa.PrivateKey
	keyID []byte

	mu     sync.Mutex
	byName map[string]*list.Element // of *leaf
	order  list.List                // newest use first
}

// leaf is made once, by the first who asks; the others wait for it.
type leaf struct {
	name    string
	expires time.Time
	once    sync.Once
	cert    *tls.Certificate
	err     error
}

func (l *leaves) init() (err error) {
	if l.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fmt.Errorf("make the leaves' key: %w", err)
	}
	l.byName = make(map[string]*list.Element)
	l.keyID, err = keyID(&l.key.PublicKey)
	return err
}

// Leaf returns a certificate for name, which is a host as policy spells it: a
// lower-case name without a trailing dot, or an address. It is renewed before it
// ends. The certificate must not be changed.
func (a *Authority) Leaf(name string) (*tls.Certificate, error) {
	now := a.now()
	e := a.leaves.entry(name, now, a.notAfter(now))
	e.once.Do(func() { e.cert, e.err = a.sign(name, now, e.expires) })
	if e.err != nil {
		a.leaves.forget(e)
		return nil, fmt.Errorf("leaf for %.80q: %w", name, e.err)
	}
	return e.cert, nil
}

// notAfter is never after the authority's own end, which verifiers refuse.
func (a *Authority) notAfter(now time.Time) time.Time {
	if t := now.Add(LeafLifetime); t.Before(a.cert.NotAfter) {
		return t
	}
	return a.cert.NotAfter
}

func (l *leaves) entry(name string, now, expires time.Time) *leaf {
	l.mu.Lock()
	defer l.mu.Unlock()
	if el, ok := l.byName[name]; ok {
		e := el.Value.(*leaf)
		if now.Before(e.expires.Add(-RenewBefore)) {
			l.order.MoveToFront(el)
			return e
		}
		l.remove(el)
	}
	e := &leaf{name: name, expires: expires}
	l.byName[name] = l.order.PushFront(e)
	if l.order.Len() > MaxLeaves {
		l.remove(l.order.Back())
	}
	return e
}

func (l *leaves) forget(e *leaf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if el, ok := l.byName[e.name]; ok && el.Value.(*leaf) == e {
		l.remove(el)
	}
}

func (l *leaves) remove(el *list.Element) {
	l.order.Remove(el)
	delete(l.byName, el.Value.(*leaf).name)
}

func (a *Authority) sign(name string, now, expires time.Time) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              expires,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          a.leaves.keyID,
	}
	if !now.Before(expires) {
		return nil, errors.New("the CA has expired: start the container again")
	}
	if len(name) <= maxCommonName {
		template.Subject.CommonName = name
	}
	switch addr, err := netip.ParseAddr(name); {
	case err == nil && addr.Zone() == "":
		template.IPAddresses = []net.IP{addr.Unmap().AsSlice()}
	case !dnsName(name):
		return nil, errors.New("not a host name in lower case")
	default:
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.leaves.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leaves.key}, nil
}

// dnsName keeps wildcards, other spellings and what is no name out of
// certificates.
func dnsName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", r) }
		if label == "" || len(label) > maxLabel || strings.ContainsFunc(label, odd) {
			return false
		}
	}
	return true
}
