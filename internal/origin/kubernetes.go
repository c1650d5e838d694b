// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// kubernetes is a key of a Secret that is read from the cluster's API. For a mounted
// Secret, use file.
type kubernetes struct {
	c Config
	o *provider.Origin
}

func (s *kubernetes) Fetch(ctx context.Context) (*Made, error) {
	set := s.o.Settings
	token, err := boundedfile.Read(set["token_file"], provider.MaxValue)
	if err != nil {
		return nil, plain("read the service account's token: " + err.Error())
	}
	roots, err := s.c.with(set["ca_file"])
	if err != nil {
		return nil, err
	}
	at, err := url.JoinPath(set["server"], "api/v1/namespaces", url.PathEscape(set["namespace"]), "secrets", url.PathEscape(set["secret"]))
	if err != nil {
		return nil, plain("the cluster's address cannot be used")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, plain("the cluster's address cannot be used")
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Accept", "application/json")
	resp, err := s.c.client(roots).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, plain(fmt.Sprintf("the cluster's API answers %d for Secret %s/%s", resp.StatusCode, set["namespace"], set["secret"]))
	}
	var answer struct {
		Data map[string][]byte `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer); err != nil {
		return nil, err
	}
	value, ok := answer.Data[set["key"]]
	if !ok {
		return nil, plain(fmt.Sprintf("Secret %s/%s has no key %s", set["namespace"], set["secret"], set["key"]))
	}
	return &Made{Value: secret.New(strings.TrimRight(string(value), "\r\n"))}, nil
}
