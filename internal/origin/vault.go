// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// vault is a field of a secret in HashiCorp Vault: of either version of its key-value
// engine, or of an engine that issues secrets with a lease.
type vault struct {
	c Config
	o *provider.Origin
}

func (s *vault) Fetch(ctx context.Context) (*Made, error) {
	token := s.o.Material["token"].Reveal()
	if f := s.o.Settings["token_file"]; f != "" {
		text, err := boundedfile.Read(f, provider.MaxValue)
		if err != nil {
			return nil, plain("read the Vault token: " + err.Error())
		}
		token = strings.TrimSpace(string(text))
	}
	roots, err := s.c.with(s.o.Settings["ca_file"])
	if err != nil {
		return nil, err
	}
	c := api.DefaultConfig()
	if c.Error != nil {
		return nil, c.Error
	}
	c.Address, c.HttpClient = s.o.Settings["address"], s.c.client(roots)
	c.DisableRedirects, c.MaxRetries, c.Timeout = true, 0, Timeout
	client, err := api.NewClient(c)
	if err != nil {
		return nil, plain("the Vault address cannot be used")
	}
	client.SetToken(token)
	if ns := s.o.Settings["namespace"]; ns != "" {
		client.SetNamespace(ns)
	}
	found, err := client.Logical().ReadWithContext(ctx, s.o.Settings["path"])
	var r *api.ResponseError
	switch {
	case errors.As(err, &r):
		return nil, plain(fmt.Sprintf("Vault answers %d", r.StatusCode))
	case err != nil:
		return nil, err
	case found == nil || found.Data == nil:
		return nil, plain("Vault has no secret at " + s.o.Settings["path"])
	}
	data := found.Data
	if inner, ok := data["data"].(map[string]any); ok && data["metadata"] != nil {
		data = inner
	}
	value, ok := data[s.o.Settings["field"]].(string)
	if !ok {
		return nil, plain(fmt.Sprintf("the secret at %s has no text in field %s", s.o.Settings["path"], s.o.Settings["field"]))
	}
	m := &Made{Value: secret.New(value)}
	if found.LeaseID != "" && found.LeaseDuration > 0 {
		m.Expires = s.c.Now().Add(time.Duration(found.LeaseDuration) * time.Second)
	}
	return m, nil
}
