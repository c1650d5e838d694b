// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"time"

	"openshell.dev/runtime/internal/secret"
)

// Gone is why a sandbox has a provider no more; empty while it has it.
type Gone string

// The reasons, as they are said.
const (
	Deleted  Gone = "deleted"
	Detached Gone = "detached"
)

// Provider is a service with its credentials and where they belong.
type Provider struct {
	Name string `json:"name"`
	// Revision is the store's: it goes up with every change of values.
	Revision int `json:"revision,omitempty"`
	// Renewed is true if the refresher replaces some values while the sandbox runs.
	Renewed bool `json:"renewed,omitempty"`
	// Gone providers keep endpoints and keys, and have no value: what belonged there
	// is refused.
	Gone Gone `json:"gone,omitempty"`
	// ModelAPI services take no credential but the provider's.
	ModelAPI    bool         `json:"modelAPI,omitempty"`
	Endpoints   []Endpoint   `json:"endpoints"`
	Credentials []Credential `json:"credentials"`
	// AuthHeaders and AuthQuery name where credentials travel.
	AuthHeaders []string `json:"authHeaders,omitempty"`
	AuthQuery   []string `json:"authQuery,omitempty"`
}

// Endpoint is a host pattern, its ports and a path; empty is every path.
type Endpoint struct {
	Host  string   `json:"host"`
	Ports []uint16 `json:"ports"`
	Path  string   `json:"path,omitempty"`
}

// Credential is a value under the variable that the sandbox knows it by.
type Credential struct {
	Key   string        `json:"key"`
	Value secret.Secret `json:"value,omitzero"`
	// Name is the profile's for it, Revision the provider's that brought the value.
	Name     string `json:"name,omitempty"`
	Revision int    `json:"revision,omitempty"`
	// Expires is when the value ends; zero is never.
	Expires time.Time `json:"expires,omitzero"`
	// Header, Query and Path are where a request has it, beside the header Authorization:
	// a header field, a query parameter, or a path with {credential} in it.
	Header string `json:"header,omitempty"`
	Query  string `json:"query,omitempty"`
	Path   string `json:"path,omitempty"`
}
