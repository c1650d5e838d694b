// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format's
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math"
)

// The format of a Java keystore (JKS), as sun.security.provider.JavaKeyStore writes it:
// magic, version and number of entries, the entries, a digest over password and content.
var (
	magicJKS = []byte{0xfe, 0xed, 0xfe, 0xed}
	// magicJCEKS starts the other old format, which holds serialized Java objects.
	magicJCEKS = []byte{0xce, 0xce, 0xce, 0xce}
)

const (
	jksHead = 12 // magic, version, number of entries

	tagKey  = 1
	tagCert = 2
)

func isJKS(store []byte) bool { return bytes.HasPrefix(store, magicJKS) }

// jksStore is a parsed keystore.
type jksStore struct {
	password string
	version  uint32
	entries  []jksEntry
}

type jksEntry struct {
	alias string
	// cert is the certificate of an entry with a trusted certificate; nil for a key. raw
	// has the bytes of the whole entry.
	cert []byte
	raw  []byte
}

// parseJKS reads a keystore and checks its digest.
func parseJKS(store []byte) (*jksStore, error) {
	if len(store) < jksHead+sha1.Size {
		return nil, fmt.Errorf("%w: it is cut short", ErrNoStore)
	}
	body, sum := store[:len(store)-sha1.Size], store[len(store)-sha1.Size:]
	s := &jksStore{version: binary.BigEndian.Uint32(body[4:])}
	known := false
	for _, p := range passwords {
		if subtle.ConstantTimeCompare(digestJKS(p, body), sum) == 1 {
			s.password, known = p, true
			break
		}
	}
	if !known {
		return nil, fmt.Errorf("%w: its password is not %q", ErrNoStore, passwords[0])
	}
	count := binary.BigEndian.Uint32(body[8:])
	if s.version < 1 || s.version > 2 || count > maxEntries {
		return nil, fmt.Errorf("%w: version %d with %d entries", ErrNoStore, s.version, count)
	}
	r := &reader{rest: body[jksHead:]}
	for range count {
		before := r.rest
		e := r.entry(s.version)
		if r.failed {
			return nil, fmt.Errorf("%w: an entry is malformed", ErrNoStore)
		}
		e.raw = before[:len(before)-len(r.rest)]
		s.entries = append(s.entries, e)
	}
	if len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: something follows its last entry", ErrNoStore)
	}
	return s, nil
}

// encode writes the keystore with its digest.
func (s *jksStore) encode() []byte {
	out := append([]byte(nil), magicJKS...)
	out = binary.BigEndian.AppendUint32(out, s.version)
	out = binary.BigEndian.AppendUint32(out, uint32(len(s.entries)))
	for _, e := range s.entries {
		out = append(out, e.raw...)
	}
	return append(out, digestJKS(s.password, out)...)
}

func digestJKS(password string, body []byte) []byte {
	h := sha1.New()
	h.Write(bmp(password))
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(body)
	return h.Sum(nil)
}

func addJKS(store, cert []byte) ([]byte, error) {
	s, err := parseJKS(store)
	if err != nil {
		return nil, err
	}
	name := alias
	for _, e := range s.entries {
		if bytes.Equal(e.cert, cert) {
			return store, nil
		}
		if e.alias == name {
			// Another sandbox's, in an image that was made with its keystore.
			name += "-"
		}
	}
	raw := binary.BigEndian.AppendUint32(nil, tagCert)
	raw = appendText(raw, name)
	raw = binary.BigEndian.AppendUint64(raw, 0) // when it was added: 1970
	if s.version == 2 {
		raw = appendText(raw, "X.509")
	}
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(cert)))
	s.entries = append(s.entries, jksEntry{raw: append(raw, cert...)})
	return s.encode(), nil
}

func removeJKS(store, cert []byte) ([]byte, error) {
	s, err := parseJKS(store)
	if err != nil {
		return nil, err
	}
	var kept []jksEntry
	for _, e := range s.entries {
		if !bytes.Equal(e.cert, cert) {
			kept = append(kept, e)
		}
	}
	if len(kept) == len(s.entries) {
		return store, nil
	}
	s.entries = kept
	return s.encode(), nil
}

func appendText(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

// reader takes bytes from the front of rest. After failed it returns nothing.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n uint32) []byte {
	if r.failed || n > math.MaxInt32 || int(n) > len(r.rest) {
		r.failed = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) text() string {
	if b := r.take(2); b != nil {
		return string(r.take(uint32(binary.BigEndian.Uint16(b))))
	}
	return ""
}

// cert reads a certificate with its type.
func (r *reader) cert(version uint32) []byte {
	if version == 2 {
		r.text()
	}
	return r.take(r.uint32())
}

func (r *reader) entry(version uint32) (e jksEntry) {
	tag := r.uint32()
	e.alias = r.text()
	r.take(8)
	switch tag {
	case tagCert:
		e.cert = r.cert(version)
	case tagKey:
		r.take(r.uint32())
		for n := r.uint32(); n > 0 && !r.failed; n-- {
			r.cert(version)
		}
	default:
		r.failed = true
	}
	return e
}
