// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := New(strings.Repeat("0123456789abcdef", 4), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func parsedLeaf(t testing.TB, a *Authority, name string) *x509.Certificate {
	t.Helper()
	c, err := a.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func verify(a *Authority, leaf *x509.Certificate, name string, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at})
	return err
}

func TestAuthority(t *testing.T) {
	a := authority(t)
	c := a.cert
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign || len(c.SubjectKeyId) != 20 || len(c.AuthorityKeyId) != 20 {
		t.Errorf("%+v", c)
	}
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() < 120 || c.SerialNumber.BitLen() > 128 {
		t.Errorf("serial %v", c.SerialNumber)
	}
	if n := c.Subject.CommonName; len(n) != maxCommonName || !strings.HasPrefix(n, commonName+"0123") {
		t.Errorf("name %q", n)
	}
	if b := authority(t); b.cert.SerialNumber.Cmp(c.SerialNumber) == 0 || b.key.Equal(a.key) {
		t.Error("two authorities are the same")
	}
}

func TestLeaf(t *testing.T) {
	a := authority(t)
	long := strings.Repeat(strings.Repeat("a", 60)+".", 3) + "example"
	for _, name := range []string{"a.example", "x_y.example", "localhost", "192.0.2.1", "2001:db8::1", long} {
		l := parsedLeaf(t, a, name)
		if err := verify(a, l, name, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if verify(a, l, "evil.example", time.Now()) == nil {
			t.Errorf("%s: good for another name", name)
		}
		if l.IsCA || l.KeyUsage != x509.KeyUsageDigitalSignature || len(l.AuthorityKeyId) == 0 || len(l.SubjectKeyId) == 0 || len(l.Subject.ToRDNSequence()) == 0 || l.SerialNumber.Sign() <= 0 {
			t.Errorf("%s: %+v", name, l)
		}
		if d := time.Until(l.NotAfter); d > LeafLifetime || d < LeafLifetime-time.Minute {
			t.Errorf("%s: ends in %v", name, d)
		}
	}
	for _, name := range []string{"", ".", "a..b", "A.example", "*.example", "a*.example", "a.example.", "a b", "a/b", "a\x00.example", "exämple", "fe80::1%eth0", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "a"} {
		if _, err := a.Leaf(name); err == nil {
			t.Errorf("a leaf for %q", name)
		}
	}
	if n := a.leaves.order.Len(); n != 6 {
		t.Errorf("%d leaves are kept", n)
	}
}

func TestBypass_B72_AuthoritiesDoNotTrustEachOther(t *testing.T) {
	a, b := authority(t), authority(t)
	if err := verify(b, parsedLeaf(t, a, "a.example"), "a.example", time.Now()); err == nil {
		t.Error("a leaf of one sandbox is good in another")
	}
}

func TestLeafIsRenewed(t *testing.T) {
	a := authority(t)
	first := parsedLeaf(t, a, "a.example")
	for _, c := range []struct {
		after time.Duration
		same  bool
	}{
		{LeafLifetime - RenewBefore - time.Minute, true},
		{LeafLifetime - RenewBefore + time.Minute, false},
		{AuthorityLifetime - time.Hour, false},
	} {
		at := time.Now().Add(c.after)
		a.now = func() time.Time { return at }
		l := parsedLeaf(t, a, "a.example")
		if (l.SerialNumber.Cmp(first.SerialNumber) == 0) != c.same {
			t.Errorf("after %v: renewed = %v", c.after, c.same)
		}
		if err := verify(a, l, "a.example", at); err != nil || l.NotAfter.After(a.cert.NotAfter) {
			t.Errorf("after %v: ends %v: %v", c.after, l.NotAfter, err)
		}
	}
	a.now = func() time.Time { return time.Now().Add(AuthorityLifetime + time.Hour) }
	if _, err := a.Leaf("a.example"); err == nil {
		t.Error("an authority that has expired signs")
	}
}

func TestBypass_B31_ManyNames(t *testing.T) {
	a := authority(t)
	kept, err := a.Leaf("kept.example")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		if _, err := a.Leaf(fmt.Sprintf("n%d.example", i)); err != nil {
			t.Fatal(err)
		}
		if again, _ := a.Leaf("kept.example"); again != kept {
			t.Fatal("a leaf in use was dropped")
		}
	}
	if n, m := len(a.leaves.byName), a.leaves.order.Len(); n != MaxLeaves || m != MaxLeaves {
		t.Errorf("%d names and %d leaves are kept", n, m)
	}
}

func TestLeafIsSignedOnce(t *testing.T) {
	a := authority(t)
	var wg sync.WaitGroup
	got := make([]*tls.Certificate, 50)
	for i := range got {
		wg.Go(func() { got[i], _ = a.Leaf("a.example") })
	}
	wg.Wait()
	for _, c := range got {
		if c == nil || c != got[0] {
			t.Fatal("signed more than once")
		}
	}
}

func TestLoad(t *testing.T) {
	a := authority(t)
	cert, key := a.PEM()
	b, err := Load(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(a, parsedLeaf(t, b, "a.example"), "a.example", time.Now()); err != nil {
		t.Error(err)
	}
	_, otherKey := authority(t).PEM()
	l, _ := a.Leaf("a.example")
	leafDER, err := x509.MarshalPKCS8PrivateKey(l.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leafKey := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: leafDER})
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: l.Certificate[0]})
	for name, c := range map[string][2][]byte{
		"another key": {cert, otherKey}, "no key": {cert, nil}, "no certificate": {nil, key}, "swapped": {key, cert}, "junk": {[]byte("x"), []byte("y")}, "a leaf": {leafPEM, leafKey},
	} {
		if _, err := Load(c[0], c[1]); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestHandshake(t *testing.T) {
	a := authority(t)
	roots := x509.NewCertPool()
	cert, _ := a.PEM()
	roots.AppendCertsFromPEM(cert)
	for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, s := net.Pipe()
		go func() {
			_ = tls.Server(s, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return a.Leaf(h.ServerName) }}).Handshake()
		}()
		if err := tls.Client(c, &tls.Config{ServerName: "a.example", RootCAs: roots, MaxVersion: max}).Handshake(); err != nil {
			t.Error(err)
		}
		c.Close()
		s.Close()
	}
}

func BenchmarkLeafHit(b *testing.B) {
	a := authority(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Leaf("a.example"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafMiss(b *testing.B) {
	a := authority(b)
	i := 0
	for b.Loop() {
		i++
		if _, err := a.Leaf(fmt.Sprintf("n%d.example", i)); err != nil {
			b.Fatal(err)
		}
	}
}
