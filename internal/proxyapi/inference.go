// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"time"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/secret"
)

// Inference is what the privacy router works with.
type Inference struct {
	inferencefile.File
	// Keys are the credentials by their route's name.
	Keys map[string]RouteKey `json:"keys,omitempty"`
}

// RouteKey is a backend's credential and how it travels: bearer, header, query, or as a
// signature, sigv4.
type RouteKey struct {
	Style string        `json:"style"`
	Name  string        `json:"name,omitempty"`
	Value secret.Secret `json:"value,omitzero"`
	// KeyID and Session are what AWS wants beside the secret, which is Value.
	KeyID   string        `json:"keyID,omitempty"`
	Session secret.Secret `json:"session,omitzero"`
	// Credential is its name in the route's provider, Revision that provider's.
	Credential string `json:"credential,omitempty"`
	Revision   int    `json:"revision,omitempty"`
	// Renewed and Expires are as a provider's and a credential's.
	Renewed bool      `json:"renewed,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}
