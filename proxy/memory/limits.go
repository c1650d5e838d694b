// SPDX-License-Identifier: Apache-2.0

package memory

import "time"

const (
	// Default is the budget of one worker, in bytes. It serves several hundred busy
	// connections; an agent has a few dozen.
	Default = 256 << 20
	// Min is the smallest budget that serves ordinary traffic, in bytes: about a
	// hundred connections with a request each.
	Min = 32 << 20
	// Base is the heap that a worker needs beside the budget, in bytes: the policy,
	// certificates, names, records that are being written, and garbage.
	Base = 48 << 20
	// Patience bounds the wait for memory. It is shorter than the time after which
	// clients give up, and longer than an ordinary request.
	Patience = 5 * time.Second
	// cutAfter is how long an account waits before the account that holds most is cut,
	// and then the time between two looks whether another one has to be cut.
	cutAfter = 250 * time.Millisecond
	// Share is the part of the free memory that one account may hold: one in Share
	// bytes. N greedy accounts together leave 1/(1+N/Share) of the budget free.
	Share = 2
	// Least is how many bytes each account may hold beyond its share while the budget
	// has room, and hold without being cut: an HTTP/2 connection with one request.
	Least = 640 << 10
)
