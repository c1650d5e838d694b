// SPDX-License-Identifier: Apache-2.0

// Package trust puts a sandbox's CA into the certificate stores that a container sees,
// and keeps it out of the container's layer.
//
// A store is a file: a PEM bundle, or a Java keystore in the format JKS or PKCS#12. [Add]
// and [Remove] change the content of one. Programs replace their stores by rename, which
// the kernel refuses for a mount. Therefore the container sees the whole folder of a
// store through an overlay whose upper layer is not the container's ([proxyapi.TrustFolder]). A
// [Keeper] adds the CA again when a program has changed a store, and [Sync] writes the
// changes of the folder into the container's layer, without the CA.
//
// Why: docs/design/0006-trust.md. The package decides nothing about which programs may
// connect; it does not make CAs.
package trust

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"path"
	"strings"
)

const (
	// MaxStore is the longest store that is read, in bytes. The longest bundles of the
	// distributions have 1 MiB; a container may have more CAs of its own.
	MaxStore = 16 << 20
	// maxEntries bounds the entries of a keystore. JDKs have about 150.
	maxEntries = 1 << 16
	// maxIterations bounds the rounds of hashing for a keystore's MAC. The JDK uses 10000
	// (100000 before version 12). At the bound, a change of a store computes three MACs in
	// about 0.1 s; an image can have 64 stores. A store above it is left as it is, with a
	// warning.
	maxIterations = 200_000
	// alias is the name of the CA in a keystore.
	alias = "openshell-sandbox"
)

// passwords are tried for a keystore's integrity check. The JDK's and Debian's keystores
// have the first.
var passwords = []string{"changeit", ""}

// ErrNoStore is wrapped by the errors about content that this package cannot change.
var ErrNoStore = errors.New("not a keystore that the sandbox's CA can be added to")

// Add returns the store with the certificates of own (PEM) in it. It returns the same
// bytes if they are there already.
func Add(store, own []byte) ([]byte, error) {
	if bytes.HasPrefix(store, magicJCEKS) {
		return nil, ErrNoStore
	}
	return change(store, own, addJKS, addPKCS12, addPEM)
}

// Remove returns the store without the certificates of own (PEM). A PKCS#12 store keeps
// those that stand in an encrypted part of it.
func Remove(store, own []byte) ([]byte, error) {
	if bytes.HasPrefix(store, magicJCEKS) {
		return store, nil
	}
	return change(store, own, removeJKS, removePKCS12, removePEM)
}

// change calls the function for the format of store: jks and pkcs12 with the first
// certificate of own (DER), bundle with own.
func change(store, own []byte, jks, pkcs12 func(store, cert []byte) ([]byte, error), bundle func(text, own []byte) []byte) ([]byte, error) {
	keystore := jks
	switch {
	case isJKS(store):
	case isDER(store):
		keystore = pkcs12
	default:
		return bundle(store, own), nil
	}
	cert, err := certificate(own)
	if err != nil {
		return nil, err
	}
	return keystore(store, cert)
}

// BrowserPolicy is the name of a file with a policy for Chromium and browsers made of it.
// The whole file is the sandbox's.
const BrowserPolicy = "openshell.json"

// browserPolicy is a policy that has the browser trust the CAs of own (PEM).
func browserPolicy(own []byte) ([]byte, error) {
	cert, err := certificate(own)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string][][]byte{"CACertificates": {cert}})
}

// addTo returns the store of that name with own in it.
func addTo(name string, store, own []byte) ([]byte, error) {
	if path.Base(name) == BrowserPolicy {
		return browserPolicy(own)
	}
	return Add(store, own)
}

// removeFrom returns the store of that name without own.
func removeFrom(name string, store, own []byte) ([]byte, error) {
	if path.Base(name) != BrowserPolicy {
		return Remove(store, own)
	}
	ours, err := browserPolicy(own)
	if err == nil && bytes.Equal(ours, store) {
		return nil, nil
	}
	return store, err
}

// isKeystore reports whether a file of that name is a Java keystore and no bundle.
func isKeystore(name string) bool { return strings.HasSuffix(name, "cacerts") }

// certificate returns the first certificate of own as DER.
func certificate(own []byte) ([]byte, error) {
	b, _ := pem.Decode(own)
	if b == nil || b.Type != certBlock {
		return nil, errors.New("the sandbox's CA is not PEM")
	}
	return b.Bytes, nil
}
