// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
)

// Bundle is the certificates of system, an image's own bundle, and then those of
// own, as PEM. Whatever else stands in system is left out: text, keys, and blocks
// that are cut short, which would take the ones after them along.
func Bundle(system, own []byte) []byte {
	ours := blocks(own)
	var out bytes.Buffer
	for _, b := range blocks(system) {
		if !contains(ours, b) {
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

func contains(all []*pem.Block, b *pem.Block) bool {
	for _, x := range all {
		if bytes.Equal(x.Bytes, b.Bytes) {
			return true
		}
	}
	return false
}
