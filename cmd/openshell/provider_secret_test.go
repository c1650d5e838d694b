// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

// TestNothingPrintsCredentials: whatever prints what a command was given, or what is shown of
// a provider, shows no value.
func TestNothingPrintsCredentials(t *testing.T) {
	const value, token = "the-value-0123456789", "the-token-0123456789"
	o := &provider.Origin{Kind: provider.FromVault, Material: map[string]secret.Secret{"token": secret.New(token)}}
	secrettest.Check(t, given{value: secret.New(value), origin: o, from: "standard input"}, []string{value, token})
	p := provider.Provider{Name: "work", Values: map[string]secret.Secret{"key": secret.New(value)}, Origins: map[string]*provider.Origin{"other": o}}
	secrettest.Check(t, shown{Provider: p, Credentials: []string{"key"}}, []string{value, token})
	secrettest.Check(t, origin{Variable: "TOKEN", Origin: *o}, []string{token})
}
