// SPDX-License-Identifier: Apache-2.0

package middleware

import "time"

// Limits of what a middleware is given and may answer, as OpenShell sets them.
const (
	// MaxBody bounds a request's body, and what takes its place, in bytes.
	MaxBody = 4 << 20
	// maxContext, maxTarget and maxHeaderBytes bound the parts of what a service
	// gets, in bytes; maxHeaders the lines of the header.
	maxContext     = 4 << 10
	maxTarget      = 32 << 10
	maxHeaderBytes = 64 << 10
	maxHeaders     = 128
	// maxReason, maxReasonCode, maxFinding, maxMutationBytes (names and values),
	// maxMutationWire (as sent) and maxMetadata bound the parts of a service's answer,
	// in bytes, maxFindings, maxMutations and maxMetadataEntries how many there are.
	maxReason          = 4 << 10
	maxReasonCode      = 64
	maxFinding         = 4 << 10
	maxFindings        = 32
	maxMutations       = 64
	maxMutationBytes   = 32 << 10
	maxMutationWire    = 64 << 10
	maxMetadata        = 32 << 10
	maxMetadataEntries = 64
	// maxMessage bounds an answer of a service, in bytes: its body and all else.
	maxMessage = MaxBody + 293<<10
	// DefaultTimeout bounds one call of a service; the operator may say MinTimeout
	// to MaxTimeout.
	DefaultTimeout = 500 * time.Millisecond
	MinTimeout     = 10 * time.Millisecond
	MaxTimeout     = 30 * time.Second
	// maxRunning requests are looked at, or read for that, at a time; maxWaiting
	// more wait, before their bodies are read.
	maxRunning = 32
	maxWaiting = 64
)

// Limits that OpenShell does not have.
const (
	// pingAfter is how long a service's connection may be silent before it is asked
	// whether it is there, pingTimeout how long that may take.
	pingAfter   = 30 * time.Second
	pingTimeout = 5 * time.Second
	// maxServiceHeader bounds the header of a service's answer, in bytes.
	maxServiceHeader = 16 << 10
)
