// SPDX-License-Identifier: Apache-2.0

package proxyapi

import "time"

// Limits both sides keep.
const (
	// MaxNameLength bounds the name of a policy, in bytes.
	MaxNameLength = 1024
	// MaxAnswer bounds a JSON answer, in bytes.
	MaxAnswer = 1 << 20
	// MaxText bounds an answer that is text, in bytes: a policy or metrics. A test compares
	// it with policy.MaxSize; this package does not import policy, because
	// libsandbox/features may not.
	MaxText = 4 << 20
	// MaxUpdate bounds what the guard is given, in bytes: every credential of the
	// largest provider, or every route, in JSON's escapes.
	MaxUpdate = 16 << 20
	// RequestTimeout bounds one request from its first byte to the answer's last:
	// compiling the largest policy and judging every open connection again.
	RequestTimeout = 60 * time.Second
)
