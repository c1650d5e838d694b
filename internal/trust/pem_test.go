// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestBundle(t *testing.T) {
	theirs, own := certPEM(t, "theirs"), certPEM(t, "ours")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("key")})
	both := string(theirs) + string(own)
	der, _ := pem.Decode(theirs)
	head, _, _ := strings.Cut(string(theirs), "\n")
	for name, c := range map[string]struct{ system, want string }{
		"nothing":              {"", string(own)},
		"one":                  {string(theirs), both},
		"no newline at end":    {strings.TrimSuffix(string(theirs), "\n"), both},
		"CRLF":                 {strings.ReplaceAll(string(theirs), "\n", "\r\n"), both},
		"comments":             {"# Some Root\n=====\n" + string(theirs) + "# the end", both},
		"a key":                {string(key) + string(theirs), both},
		"cut at the end":       {string(theirs) + string(theirs[:200]), both},
		"cut before another":   {head + "\nMIIB\n" + string(theirs), both},
		"junk in a block":      {head + "\n!!!!\n-----END CERTIFICATE-----\n" + string(theirs), both},
		"no certificate in it": {head + "\n" + b64([]byte("hello")) + "\n-----END CERTIFICATE-----\n" + string(theirs), both},
		"something behind it":  {head + "\n" + b64(append(der.Bytes, 0)) + "\n-----END CERTIFICATE-----\n" + string(theirs), both},
		"bytes":                {"\x00\xff\n" + string(theirs) + "\x00", both},
		"ours is there":        {both, both},
	} {
		if got := bundle([]byte(c.system), own); string(got) != c.want {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func FuzzBundle(f *testing.F) {
	own := certPEM(f, "ours")
	f.Add(own)
	f.Add([]byte("-----BEGIN CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, system []byte) {
		out := bundle(system, own)
		if !bytes.HasSuffix(out, own) {
			t.Fatal("our CA is not the last")
		}
		if !x509.NewCertPool().AppendCertsFromPEM(out) {
			t.Fatal("no certificate can be read")
		}
		if again := bundle(out, own); !bytes.Equal(again, out) {
			t.Fatal("not the same when done twice")
		}
	})
}
