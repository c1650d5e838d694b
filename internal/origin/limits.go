// SPDX-License-Identifier: Apache-2.0

package origin

import "time"

const (
	// Timeout limits fetching one credential, and dialTimeout connecting and the TLS
	// handshake.
	Timeout     = 30 * time.Second
	dialTimeout = 10 * time.Second
	// maxAnswer is the largest response and maxHeader the largest response header, in
	// bytes. A Kubernetes Secret has at most 1 MiB, and base64 makes it a third larger.
	maxAnswer = 2 << 20
	maxHeader = 64 << 10
	// maxError is the length of the longest error text in bytes.
	maxError = 500
	// usualLifetime is the lifetime of a token if the response does not have it, as in
	// OpenShell.
	usualLifetime = time.Hour
)
