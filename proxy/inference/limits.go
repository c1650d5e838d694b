// SPDX-License-Identifier: Apache-2.0

package inference

import "time"

// Limits of one sandbox's router.
const (
	// MaxRequest bounds a request's body, in bytes.
	MaxRequest = 10 << 20
	// MaxResponse bounds an answer that is not streamed, in bytes.
	MaxResponse = 32 << 20
	// MaxStream bounds a streamed answer, in bytes.
	MaxStream = 32 << 20
	// MaxExchanges bounds the requests under way at a time.
	MaxExchanges = 1024
	// MaxRoutes bounds the routes of a router.
	MaxRoutes = 64
	// MaxModel bounds a model's name, in bytes.
	MaxModel = 256
	// MaxMembers bounds the members of a request's outermost object.
	MaxMembers = 1024
	// MaxSecret bounds a credential, in bytes.
	MaxSecret = 16 << 10
	// DefaultTimeout bounds a request whose answer is not streamed.
	DefaultTimeout = 60 * time.Second
	// DefaultIdleTimeout bounds the wait for a stream's head and for each next
	// part of it, and each write to the caller.
	DefaultIdleTimeout = 120 * time.Second
	// RequestTimeout bounds the time in which a caller must send its body.
	RequestTimeout = 60 * time.Second
	// exhaustedRetry is the Retry-After of a total that is used up: it never
	// refills by itself.
	exhaustedRetry = time.Hour
	// smallBuffer is the size of a stream's parts in bytes, and largeBuffer of one's
	// that has filled a small one.
	smallBuffer = 2 << 10
	largeBuffer = 16 << 10
	// maxRecorded bounds the text of a caller's in a record, in bytes.
	maxRecorded = 256
)
