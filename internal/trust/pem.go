// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"slices"
)

// certBlock is the type of PEM blocks that hold a certificate.
const certBlock = "CERTIFICATE"

// addPEM returns text with the certificates of own behind it. It keeps text as it is,
// unless a block in it is malformed: that would take own along when programs read it.
func addPEM(text, own []byte) []byte {
	certs := blocks(text)
	if contains(certs, blocks(own)) {
		return text
	}
	if bytes.Count(text, []byte("-----BEGIN ")) != len(certs) {
		return bundle(text, own)
	}
	out := append([]byte(nil), text...)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, own...)
}

// removePEM returns text without the blocks of own, which stand in it as addPEM writes
// them or as another program has copied them.
func removePEM(text, own []byte) []byte {
	ours := blocks(own)
	out := bytes.ReplaceAll(text, own, nil)
	if !contains(blocks(out), ours) {
		return out
	}
	var kept bytes.Buffer
	for _, b := range blocks(out) {
		if !contains(ours, []*pem.Block{b}) {
			_ = pem.Encode(&kept, b) // to memory
		}
	}
	return kept.Bytes()
}

// bundle is the certificates of system, an image's own bundle, and then those of
// own, as PEM. Whatever else stands in system is left out: text, keys, and blocks
// that are cut short, which would take the ones after them along.
func bundle(system, own []byte) []byte {
	ours := blocks(own)
	var out bytes.Buffer
	for _, b := range blocks(system) {
		if !contains(ours, []*pem.Block{b}) {
			_ = pem.Encode(&out, b) // to memory
		}
	}
	for _, b := range ours {
		_ = pem.Encode(&out, b) // to memory
	}
	return out.Bytes()
}

func blocks(text []byte) (found []*pem.Block) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return found
		}
		if b.Type != certBlock {
			continue
		}
		var der asn1.RawValue
		if rest, err := asn1.Unmarshal(b.Bytes, &der); err != nil || len(rest) != 0 || der.Tag != asn1.TagSequence {
			continue
		}
		found = append(found, &pem.Block{Type: certBlock, Bytes: b.Bytes})
	}
}

// contains reports whether all has every block of some, of which there is at least one.
func contains(all, some []*pem.Block) bool {
	for _, b := range some {
		if !slices.ContainsFunc(all, func(x *pem.Block) bool { return bytes.Equal(x.Bytes, b.Bytes) }) {
			return false
		}
	}
	return len(some) > 0
}
