// SPDX-License-Identifier: Apache-2.0

// Package ca is the certificate authority of one sandbox: the certificate that
// the container is made to trust and the leaves by which the proxy is each server
// that it speaks for. The authority trusts nobody and nobody else trusts it; its
// key never enters the container.
//
// It is not name-constrained: which names a policy allows may change while the
// container runs, the certificate cannot.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	organization = "OpenShell"
	commonName   = "OpenShell Sandbox CA "
	certBlock    = "CERTIFICATE"
	keyBlock     = "PRIVATE KEY"
)

// Authority signs leaves. It is safe for concurrent use.
type Authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	keyDER []byte
	leaves leaves
	now    func() time.Time
}

// New makes the authority of the sandbox id, good from an hour before now. A long
// id is cut in the certificate's name.
func New(id string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	ski, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	name := commonName + id
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: name[:min(len(name), maxCommonName)]},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(AuthorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          ski,
		AuthorityKeyId:        ski,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return build(der, key)
}

// Load reads what PEM gave, so that a proxy that comes back is still trusted.
func Load(certPEM, keyPEM []byte) (*Authority, error) {
	cert, _ := pem.Decode(certPEM)
	if cert == nil || cert.Type != certBlock {
		return nil, errors.New("load the CA: no certificate in PEM")
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("load the CA: no private key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load the CA's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("load the CA: its key is not of P-256")
	}
	return build(cert.Bytes, key)
}

func build(der []byte, key *ecdsa.PrivateKey) (*Authority, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	if !cert.IsCA || !cert.MaxPathLenZero || cert.KeyUsage != x509.KeyUsageCertSign {
		return nil, errors.New("the CA's certificate is not one of ours")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the CA's key does not belong to its certificate")
	}
	a := &Authority{cert: cert, key: key, now: time.Now}
	if a.keyDER, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, fmt.Errorf("write the CA's key: %w", err)
	}
	if err := a.leaves.init(); err != nil {
		return nil, err
	}
	return a, nil
}

// PEM is the certificate, which the container gets, and the key, which only the
// proxy may read.
func (a *Authority) PEM() (cert, key []byte) {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: a.cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: a.keyDER})
}

// serial is random, positive and of 128 bits.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// keyID is method 1 of RFC 7093.
func keyID(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(point)
	return sum[:20], nil
}
