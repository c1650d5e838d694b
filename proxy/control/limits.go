// SPDX-License-Identifier: Apache-2.0

package control

import "time"

// Limits of the control plane.
const (
	// MaxRevisions is how many revisions are kept, MaxKept how many bytes of text
	// together; the newest is kept whatever its size.
	MaxRevisions = 16
	MaxKept      = 16 << 20
	// MaxConnections are served at once.
	MaxConnections = 16
	// MaxDetail bounds what is said about an invalid policy, in bytes.
	MaxDetail = 64 << 10
	// MaxHeader bounds a request's header, maxRollback a rollback's body, and
	// maxIndex the index file, in bytes.
	MaxHeader   = 16 << 10
	maxRollback = 256
	maxIndex    = 1 << 20
	// HeaderPatience is how long a request's header may take; BodyPatience the
	// whole request.
	HeaderPatience = 5 * time.Second
	BodyPatience   = 30 * time.Second
)
