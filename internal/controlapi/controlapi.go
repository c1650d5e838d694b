// SPDX-License-Identifier: Apache-2.0

// Package controlapi is what is said on the control socket of a sandbox's proxy:
// HTTP/1.1 with JSON and YAML over a unix socket that only root opens. The proxy
// serves it, the person's CLI is its client.
//
// The paths are PathStatus (GET), PathPolicy (GET, POST), PathPolicies (GET) and
// PathRollback (POST).
package controlapi

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"openshell.dev/runtime/internal/handoff"
)

// The paths of the API.
const (
	PathStatus   = "/v1/status"
	PathPolicy   = "/v1/policy"
	PathPolicies = "/v1/policies"
	PathRollback = "/v1/rollback"
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
)

// Socket is the control socket in a sandbox's state folder.
func Socket(stateDir string) string { return filepath.Join(stateDir, handoff.ControlSocket) }

// Status is the answer to PathStatus.
type Status struct {
	// ID is the container's.
	ID string `json:"id"`
	// Revision is enforced, loaded at Since; Policy is where its text came from.
	Revision int       `json:"revision"`
	Policy   string    `json:"policy"`
	Since    time.Time `json:"since"`
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
)

// Loaded is the answer to a policy that is now enforced, and the body of
// PathRollback.
type Loaded struct {
	Revision int `json:"revision"`
}

// Failure is the answer to a request that changed nothing.
type Failure struct {
	Code   string   `json:"error"`
	Fields []string `json:"fields,omitempty"`
	Detail string   `json:"detail,omitempty"`
}

func (f *Failure) Error() string {
	switch f.Code {
	case CodeStaticChange:
		return fmt.Sprintf("these fields are locked when a sandbox is created: %s; make a new sandbox to change them", strings.Join(f.Fields, ", "))
	case CodeInvalidPolicy:
		return f.Detail
	}
	return f.Code + ": " + f.Detail
}
