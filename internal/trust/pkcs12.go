// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the format's
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"hash"
	"unicode/utf16"
)

// A PKCS#12 store (RFC 7292) is a list of parts, each of which is encrypted or not, with
// a MAC over the list or without one, as JDK 18 and newer write cacerts. The CA becomes a
// part of its own that is not encrypted; no other part is read.
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
		MacData  macData `asn1:"optional"`
	}
	contentInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	macData struct {
		Mac        digestInfo
		MacSalt    []byte
		Iterations int `asn1:"optional,default:1"`
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes []attribute   `asn1:"set,optional"`
	}
	certBag struct {
		ID   asn1.ObjectIdentifier
		Data []byte `asn1:"tag:0,explicit"`
	}
	attribute struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"set"`
	}
)

var (
	oidData         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidCertBag      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	// oidTrustedKeyUsage is the JDK's mark of a certificate that is trusted.
	oidTrustedKeyUsage = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
	oidAnyUsage        = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

// macs are the digests of MACs that are known. PBMAC1 is not.
var macs = []struct {
	id  asn1.ObjectIdentifier
	new func() hash.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, sha1.New},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, sha256.New},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, sha512.New384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, sha512.New},
}

// isDER reports whether store begins as a sequence, which no text does.
func isDER(store []byte) bool { return len(store) > 1 && store[0] == 0x30 && store[1] >= 0x80 }

// pkcs12Store is a parsed store.
type pkcs12Store struct {
	pfx   pfx
	parts []asn1.RawValue
	// password and hash make the MAC; hash is nil without one.
	password string
	hash     func() hash.Hash
}

func parsePKCS12(store []byte) (*pkcs12Store, error) {
	s := &pkcs12Store{}
	if err := unmarshal(store, &s.pfx); err != nil {
		return nil, err
	}
	if s.pfx.Version != 3 || !s.pfx.AuthSafe.ContentType.Equal(oidData) {
		return nil, fmt.Errorf("%w: PKCS#12 of version %d with content %v", ErrNoStore, s.pfx.Version, s.pfx.AuthSafe.ContentType)
	}
	var content []byte
	if err := unmarshal(s.pfx.AuthSafe.Content.Bytes, &content); err != nil {
		return nil, err
	}
	if err := unmarshal(content, &s.parts); err != nil {
		return nil, err
	}
	m := &s.pfx.MacData
	if len(m.Mac.Algorithm.Algorithm) == 0 {
		return s, nil
	}
	for _, k := range macs {
		if k.id.Equal(m.Mac.Algorithm.Algorithm) {
			s.hash = k.new
		}
	}
	if s.hash == nil || m.Iterations < 1 || m.Iterations > maxIterations {
		return nil, fmt.Errorf("%w: PKCS#12 with a MAC of kind %v and %d iterations", ErrNoStore, m.Mac.Algorithm.Algorithm, m.Iterations)
	}
	for _, s.password = range passwords {
		if hmac.Equal(s.mac(content), m.Mac.Digest) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: its password is not %q", ErrNoStore, passwords[0])
}

// unmarshal reads the whole of der.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow", len(rest))
	}
	if err != nil {
		return fmt.Errorf("%w: PKCS#12: %w", ErrNoStore, err)
	}
	return nil
}

// encode writes the store with a new MAC, if it had one.
func (s *pkcs12Store) encode() ([]byte, error) {
	content, err := asn1.Marshal(s.parts)
	if err != nil {
		return nil, err
	}
	part, err := data(content)
	if err != nil {
		return nil, err
	}
	if s.hash == nil {
		return asn1.Marshal(struct {
			Version  int
			AuthSafe contentInfo
		}{s.pfx.Version, part})
	}
	out := s.pfx
	out.AuthSafe, out.MacData.Mac.Digest = part, s.mac(content)
	return asn1.Marshal(out)
}

// data returns a part that holds content without encryption.
func data(content []byte) (contentInfo, error) {
	octets, err := asn1.Marshal(content)
	return contentInfo{ContentType: oidData, Content: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets}}, err
}

// mac is the MAC of content with a key that RFC 7292, appendix B, derives from the
// password. The key is as long as the hash, so that one round makes all of it.
func (s *pkcs12Store) mac(content []byte) []byte {
	const idMAC = 3
	block := s.hash().BlockSize()
	fill := func(b []byte) (out []byte) {
		for len(b) > 0 && len(out) < (len(b)+block-1)/block*block {
			out = append(out, b[:min(len(b), (len(b)+block-1)/block*block-len(out))]...)
		}
		return out
	}
	password := append(bmp(s.password), 0, 0)
	h := s.hash()
	h.Write(bytes.Repeat([]byte{idMAC}, block))
	h.Write(fill(s.pfx.MacData.MacSalt))
	h.Write(fill(password))
	key := h.Sum(nil)
	for range s.pfx.MacData.Iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(key[:0])
	}
	m := hmac.New(s.hash, key)
	m.Write(content)
	return m.Sum(nil)
}

// bmp is s as a BMPString.
func bmp(s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}

func addPKCS12(store, cert []byte) ([]byte, error) {
	s, err := parsePKCS12(store)
	if err != nil {
		return nil, err
	}
	for _, p := range s.parts {
		if bags, _ := openBags(p); contains509(bags, cert) {
			return store, nil
		}
	}
	bag, err := asn1.Marshal(certBag{oidX509, cert})
	if err != nil {
		return nil, err
	}
	usage, err := asn1.Marshal(oidAnyUsage)
	if err != nil {
		return nil, err
	}
	name, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagBMPString, Bytes: bmp(alias)})
	if err != nil {
		return nil, err
	}
	set := func(b []byte) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: b} }
	p, err := closeBags([]safeBag{{
		ID: oidCertBag, Value: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: bag},
		Attributes: []attribute{{oidFriendlyName, set(name)}, {oidTrustedKeyUsage, set(usage)}},
	}})
	if err != nil {
		return nil, err
	}
	s.parts = append(s.parts, p)
	return s.encode()
}

func removePKCS12(store, cert []byte) ([]byte, error) {
	s, err := parsePKCS12(store)
	if err != nil {
		return nil, err
	}
	var parts []asn1.RawValue
	for _, p := range s.parts {
		bags, _ := openBags(p)
		if !contains509(bags, cert) {
			parts = append(parts, p)
			continue
		}
		var kept []safeBag
		for _, b := range bags {
			if !contains509([]safeBag{b}, cert) {
				kept = append(kept, b)
			}
		}
		if len(kept) > 0 {
			if p, err = closeBags(kept); err != nil {
				return nil, err
			}
			parts = append(parts, p)
		}
	}
	if len(parts) == len(s.parts) && bytes.Equal(joined(parts), joined(s.parts)) {
		return store, nil
	}
	s.parts = parts
	return s.encode()
}

func joined(parts []asn1.RawValue) (out []byte) {
	for _, p := range parts {
		out = append(out, p.FullBytes...)
	}
	return out
}

// openBags returns the bags of a part that is not encrypted; none of another.
func openBags(part asn1.RawValue) (bags []safeBag, err error) {
	var c contentInfo
	if err := unmarshal(part.FullBytes, &c); err != nil || !c.ContentType.Equal(oidData) {
		return nil, err
	}
	var content []byte
	if err := unmarshal(c.Content.Bytes, &content); err != nil {
		return nil, err
	}
	return bags, unmarshal(content, &bags)
}

// closeBags is a part with bags that is not encrypted.
func closeBags(bags []safeBag) (p asn1.RawValue, err error) {
	content, err := asn1.Marshal(bags)
	if err != nil {
		return p, err
	}
	c, err := data(content)
	if err != nil {
		return p, err
	}
	full, err := asn1.Marshal(c)
	return asn1.RawValue{FullBytes: full}, err
}

func contains509(bags []safeBag, cert []byte) bool {
	for _, b := range bags {
		var c certBag
		if b.ID.Equal(oidCertBag) && unmarshal(b.Value.Bytes, &c) == nil && c.ID.Equal(oidX509) && bytes.Equal(c.Data, cert) {
			return true
		}
	}
	return false
}
