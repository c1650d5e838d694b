// SPDX-License-Identifier: Apache-2.0

package upstream

import "time"

// Limits of reaching somebody.
const (
	// DialTimeout bounds one connection with all addresses of its name tried.
	DialTimeout = 15 * time.Second
	// AddressTimeout bounds one address.
	AddressTimeout = 5 * time.Second
	// AttemptDelay is how long the latest attempt may take before the next address is
	// tried beside it: the Connection Attempt Delay that RFC 8305, section 5 recommends.
	AttemptDelay = 250 * time.Millisecond
	// MaxExtraAttempts bounds the attempts of one Dialer beside the oldest of each
	// Dial, and so their descriptors. At the bound the next address is tried only when
	// the attempt before it has failed.
	MaxExtraAttempts = 64
	// QueryTimeout bounds one question to one resolver.
	QueryTimeout = 2 * time.Second
	// Rounds is how often all resolvers are asked: a datagram may be lost.
	Rounds = 2
	// MaxAddresses bounds the addresses of one name that are looked at.
	MaxAddresses = 64
	// MaxCached bounds the names whose addresses are remembered.
	MaxCached = 1024
	// MaxCacheTime bounds how long they are, whatever the answer's TTL.
	MaxCacheTime = 30 * time.Second
)
