// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// chain creates a root, an intermediate and a leaf for names, valid for one day.
func chain(names []string) (tls.Certificate, []byte, error) {
	var zero tls.Certificate
	sign := func(t, parent *x509.Certificate, key any, signer any) (*x509.Certificate, error) {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return nil, err
		}
		t.SerialNumber, t.NotBefore, t.NotAfter = n, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, t, parent, key, signer)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	var keys [3]*ecdsa.PrivateKey
	for i := range keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return zero, nil, fmt.Errorf("make upstream's keys: %w", err)
		}
		keys[i] = k
	}
	authority := func(cn string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	rootT := authority("Upstream Test Root")
	root, err := sign(rootT, rootT, &keys[0].PublicKey, keys[0])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's root: %w", err)
	}
	middle, err := sign(authority("Upstream Test Intermediate"), root, &keys[1].PublicKey, keys[0])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's intermediate: %w", err)
	}
	leafT := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leafT.IPAddresses = append(leafT.IPAddresses, ip)
		} else {
			leafT.DNSNames = append(leafT.DNSNames, n)
		}
	}
	leaf, err := sign(leafT, middle, &keys[2].PublicKey, keys[1])
	if err != nil {
		return zero, nil, fmt.Errorf("make upstream's leaf: %w", err)
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw, middle.Raw}, PrivateKey: keys[2], Leaf: leaf}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), nil
}
