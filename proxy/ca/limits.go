// SPDX-License-Identifier: Apache-2.0

package ca

import "time"

const (
	// AuthorityLifetime bounds a CA whose container outlives every expectation.
	// Containers of agents run for weeks and their clients read the certificate
	// once, so it cannot be renewed; it is as good as gone when the container is,
	// because its key and its one believer go then.
	AuthorityLifetime = 365 * 24 * time.Hour
	// LeafLifetime is how long one leaf is good.
	LeafLifetime = 24 * time.Hour
	// RenewBefore is how long before its end a leaf is replaced; what a client
	// begins with one outlasts that rarely.
	RenewBefore = 6 * time.Hour
	// ClockSkew is how far back certificates begin, for clocks that are behind.
	ClockSkew = time.Hour
	// MaxLeaves bounds the cache; the leaf that was not used for longest goes.
	MaxLeaves = 1024

	// maxCommonName is ub-common-name of RFC 5280, which some verifiers enforce.
	maxCommonName = 64
	// maxName and maxLabel are those of DNS.
	maxName  = 253
	maxLabel = 63
)
