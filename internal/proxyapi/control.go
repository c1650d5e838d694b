// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// The paths of the API.
const (
	PathStatus   = "/v1/status"
	PathMetrics  = "/v1/metrics"
	PathPolicy   = "/v1/policy"
	PathPolicies = "/v1/policies"
	PathRollback = "/v1/rollback"
)

// The paths at the guard's socket.
const (
	PathProviders = "/v1/providers"
	PathProvider  = "/v1/provider"
	PathAttach    = "/v1/attach"
	PathDetach    = "/v1/detach"
	PathInference = "/v1/inference"
)

// Parameters and headers of PathPolicy.
const (
	// ParamRevision is the query parameter of a GET: which revision, the newest
	// without it. ParamName is a POST's: where the text came from.
	ParamRevision = "revision"
	ParamName     = "name"
	// HeaderRevision is the revision that a GET answers with.
	HeaderRevision = "Openshell-Revision"
)

// Codes of Failure.
const (
	CodeStaticChange  = "static_change"
	CodeInvalidPolicy = "invalid_policy"
	CodeBadRequest    = "bad_request"
	CodeNotFound      = "not_found"
	CodeTooLarge      = "too_large"
	CodeInternal      = "internal"
	CodeNotAttached   = "not_attached"
	CodeDeleted       = "deleted"
)

// ControlSocket is the control socket in a sandbox's state folder.
func ControlSocket(stateDir string) string { return filepath.Join(stateDir, ControlSocketFile) }

// SecretsSocket is the guard's socket in a sandbox's state folder.
func SecretsSocket(stateDir string) string { return filepath.Join(stateDir, SecretsSocketFile) }

// Attached is a provider that a sandbox has, without its values.
type Attached struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`
	Renewed  bool   `json:"renewed,omitempty"`
	// Gone says why the sandbox has it no more; empty while it has it.
	Gone Gone `json:"gone,omitempty"`
	// Expires says when the newest value of a key ends, for those that do.
	Expires map[string]time.Time `json:"expires,omitempty"`
	// Routes are those of the privacy router that use it.
	Routes []string `json:"routes,omitempty"`
}

// Status is the answer to PathStatus.
type Status struct {
	// ID is the container's.
	ID string `json:"id"`
	// Revision is enforced, loaded at Since; Policy is where its text came from.
	Revision int       `json:"revision"`
	Policy   string    `json:"policy"`
	Since    time.Time `json:"since"`
	// Closed is why everything is denied; empty if Revision is a valid policy.
	Closed string `json:"closed,omitempty"`
	// Connections are open now.
	Connections int `json:"connections"`
	// Pid is the proxy's worker; Started is when it began, which is later than
	// the container did if it had to be replaced.
	Pid     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// Revision is one policy that was enforced.
type Revision struct {
	Revision int       `json:"revision"`
	LoadedAt time.Time `json:"loaded_at"`
	// Name is where the text came from.
	Name   string         `json:"name"`
	Status RevisionStatus `json:"status"`
}

// RevisionStatus says whether a revision is the one enforced.
type RevisionStatus string

// The statuses, in OpenShell's words.
const (
	StatusLoaded     RevisionStatus = "loaded"
	StatusSuperseded RevisionStatus = "superseded"
	// StatusFailed is of an invalid policy, for which everything is denied.
	StatusFailed RevisionStatus = "failed"
)

// Loaded is the answer to a policy that is now enforced, and the body of
// PathRollback.
type Loaded struct {
	Revision int `json:"revision"`
}

// Attachment is one more provider for a sandbox, out of the store in a folder.
type Attachment struct {
	Store    string   `json:"store"`
	Provider Provider `json:"provider"`
}

// Detachment names a provider that a sandbox is to have no more.
type Detachment struct {
	Name string `json:"name"`
}

// Updated is the guard's answer to what is now in use.
type Updated struct {
	Generation int `json:"generation"`
}

// Failure is the answer to a request that changed nothing, or that Denies.
type Failure struct {
	Code   string   `json:"error"`
	Fields []string `json:"fields,omitempty"`
	Detail string   `json:"detail,omitempty"`
	// Denies is the revision with which everything is denied from now on; 0 if
	// nothing has changed.
	Denies int `json:"denies,omitempty"`
}

func (f *Failure) Error() string {
	switch f.Code {
	case CodeStaticChange:
		if f.Detail != "" {
			return strings.Join(f.Fields, ", ") + ": " + f.Detail
		}
		return fmt.Sprintf("these fields are locked when a sandbox is created: %s; make a new sandbox to change them", strings.Join(f.Fields, ", "))
	case CodeInvalidPolicy, CodeNotAttached, CodeDeleted:
		return f.Detail
	}
	return f.Code + ": " + f.Detail
}
