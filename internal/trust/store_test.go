// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certPEM makes a CA's certificate.
func certPEM(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}

// emptyJKS is a keystore without entries.
func emptyJKS(version uint32) []byte {
	return (&jksStore{password: "changeit", version: version}).encode()
}

// otherPKCS12 is a store with one certificate and without a MAC.
func otherPKCS12(t testing.TB) []byte {
	t.Helper()
	s := &pkcs12Store{pfx: pfx{Version: 3}}
	out, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := certificate(certPEM(t, "another"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err = addPKCS12(out, cert); err != nil { // too short for Add to know it by its beginning
		t.Fatal(err)
	}
	return out
}

// withMAC is store with a MAC for the password.
func withMAC(t testing.TB, store []byte, kind asn1.ObjectIdentifier, password string) []byte {
	t.Helper()
	return withIterations(t, store, kind, password, 3)
}

func withIterations(t testing.TB, store []byte, kind asn1.ObjectIdentifier, password string, iterations int) []byte {
	t.Helper()
	s, err := parsePKCS12(store)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range macs {
		if k.id.Equal(kind) {
			s.hash = k.new
		}
	}
	s.password = password
	s.pfx.MacData = macData{Mac: digestInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: kind, Parameters: asn1.NullRawValue}}, MacSalt: []byte("saltsalt"), Iterations: iterations}
	out, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTrustAddAndRemove (issue 11, point 4): what Add puts into a store of each format, Remove takes out,
// and the store is as before.
func TestTrustAddAndRemove(t *testing.T) {
	theirs, own := certPEM(t, "theirs"), certPEM(t, "ours")
	stores := map[string][]byte{"no bundle": nil, "PEM": theirs, "PEM with comments": []byte("# Some Root\n" + string(theirs)), "JKS": emptyJKS(2), "JKS of version 1": emptyJKS(1), "PKCS#12": otherPKCS12(t)}
	for name, kind := range map[string]int{"SHA-1": 0, "SHA-256": 1, "SHA-384": 2, "SHA-512": 3} {
		stores["PKCS#12 with a MAC, "+name] = withMAC(t, otherPKCS12(t), macs[kind].id, "changeit")
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			if name != "no bundle" && !strings.HasPrefix(name, "PEM") {
				// With the other's certificate as well.
				var err error
				if store, err = Add(store, theirs); err != nil {
					t.Fatal(err)
				}
			}
			before := bytes.Clone(store)
			with, err := Add(store, own)
			if err != nil {
				t.Fatal(err)
			}
			der, _ := certificate(own)
			if !bytes.Contains(with, der) && !bytes.Contains(with, own) {
				t.Error("the CA is not in it")
			}
			if again, err := Add(with, own); err != nil || !bytes.Equal(again, with) {
				t.Errorf("added twice: %v", err)
			}
			without, err := Remove(with, own)
			if err != nil || !bytes.Equal(without, before) || !bytes.Equal(store, before) {
				t.Errorf("removed: %v\n%x\nwant\n%x", err, without, before)
			}
			if same, err := Remove(before, own); err != nil || !bytes.Equal(same, before) {
				t.Errorf("removed from where it is not: %v", err)
			}
		})
	}
}

// TestTrustHostileStores (issue 11, point 4): a store that cannot be read is refused.
func TestTrustHostileStores(t *testing.T) {
	own := certPEM(t, "ours")
	jks, err := Add(emptyJKS(2), own)
	if err != nil {
		t.Fatal(err)
	}
	other := &jksStore{password: "another", version: 2}
	sealed := func(body []byte) []byte { return append(body, digestJKS("changeit", body)...) }
	p12 := otherPKCS12(t)
	slow := withIterations(t, p12, macs[0].id, "changeit", maxIterations+1)
	for name, store := range map[string][]byte{
		"JKS, cut short":           jks[:20],
		"JKS, changed":             append(jks[:len(jks)-1:len(jks)-1], jks[len(jks)-1]^1),
		"JKS, another password":    other.encode(),
		"JKS, more entries":        sealed(append(bytes.Clone(magicJKS), 0, 0, 0, 2, 0, 0, 0, 2)),
		"JKS, endless":             sealed(append(bytes.Clone(magicJKS), 0, 0, 0, 2, 255, 255, 255, 255)),
		"JKS, something behind":    sealed(append(bytes.Clone(magicJKS), 0, 0, 0, 2, 0, 0, 0, 0, 1)),
		"JKS, a length too long":   sealed(append(bytes.Clone(magicJKS), 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)),
		"JKS, of version 3":        sealed(append(bytes.Clone(magicJKS), 0, 0, 0, 3, 0, 0, 0, 0)),
		"JCEKS":                    append(bytes.Clone(magicJCEKS), 0, 0, 0, 2),
		"PKCS#12, cut short":       p12[:len(p12)-1],
		"PKCS#12, something after": append(bytes.Clone(p12), 0),
		"PKCS#12, password":        withMAC(t, p12, macs[1].id, "another"),
		"PKCS#12, slow":            slow,
		"a certificate":            func() []byte { d, _ := certificate(own); return d }(),
	} {
		if _, err := Add(store, own); !errors.Is(err, ErrNoStore) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTrustKeytoolReads (issue 11, point 4): Java's own tool finds the CA in the stores that Add makes of
// its own stores, and no more what Remove leaves.
func TestTrustKeytoolReads(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("no keytool on this machine")
	}
	theirs, own := certPEM(t, "theirs"), certPEM(t, "ours")
	dir := t.TempDir()
	file := filepath.Join(dir, "theirs.pem")
	if err := os.WriteFile(file, theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.Command(keytool, append(args, "-storepass", "changeit", "-J-XX:TieredStopAtLevel=1")...).CombinedOutput()
		if err != nil {
			t.Fatalf("keytool %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	der, _ := certificate(own)
	sum := sha256.Sum256(der)
	var print []string
	for _, b := range sum {
		print = append(print, strings.ToUpper(string("0123456789abcdef"[b>>4])+string("0123456789abcdef"[b&15])))
	}
	for _, format := range []string{"JKS", "PKCS12"} {
		store := filepath.Join(dir, format)
		run("-importcert", "-noprompt", "-alias", "theirs", "-file", file, "-keystore", store, "-storetype", format)
		before, err := os.ReadFile(store)
		if err != nil {
			t.Fatal(err)
		}
		with, err := Add(before, own)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(store, with, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run("-list", "-keystore", store); strings.Count(out, "trustedCertEntry") != 2 || !strings.Contains(out, strings.Join(print, ":")) {
			t.Errorf("%s: keytool does not find the CA (%s):\n%s", format, strings.Join(print, ":"), out)
		}
		without, err := Remove(with, own)
		if err != nil || !bytes.Equal(without, before) {
			t.Errorf("%s: removed: %v", format, err)
		}
	}
}

func FuzzStore(f *testing.F) {
	own := certPEM(f, "ours")
	jks, _ := Add(emptyJKS(2), own)
	p12, _ := Add(otherPKCS12(f), own)
	for _, s := range [][]byte{own, jks, p12, emptyJKS(1), withMAC(f, otherPKCS12(f), macs[1].id, ""), withMAC(f, p12, macs[0].id, "changeit")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, store []byte) {
		if isJKS(store) && len(store) >= jksHead+20 {
			// Past the digest, which no fuzzer guesses.
			body := store[:len(store)-20]
			store = append(bytes.Clone(body), digestJKS("changeit", body)...)
		}
		with, err := Add(store, own)
		if err != nil {
			return
		}
		if again, err := Add(with, own); err != nil || !bytes.Equal(again, with) {
			t.Fatalf("not the same when done twice: %v", err)
		}
		without, err := Remove(with, own)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Add(without, own); err != nil || len(back) == len(without) {
			t.Fatalf("the CA was still in it: %v", err)
		}
	})
}

// BenchmarkAdd measures what the machine's own stores cost.
func BenchmarkAdd(b *testing.B) {
	own := certPEM(b, "ours")
	for name, file := range map[string]string{"bundle": "/etc/ssl/certs/ca-certificates.crt", "keystore": "/etc/ssl/certs/java/cacerts"} {
		store, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Add(store, own); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestIterations: the MAC of a hostile image's keystore costs the guard a bounded time, and
// the JDK's own keystores are below the bound.
func TestIterations(t *testing.T) {
	own := certPEM(t, "ours")
	for iterations, want := range map[int]error{100_000: nil, maxIterations: nil, maxIterations + 1: ErrNoStore, 250_000: ErrNoStore} {
		store := withIterations(t, otherPKCS12(t), macs[1].id, "changeit", iterations)
		if with, err := Add(store, own); !errors.Is(err, want) || want == nil && bytes.Equal(with, store) {
			t.Errorf("%d iterations: error %v, not %v", iterations, err, want)
		}
	}
}
