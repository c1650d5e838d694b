// SPDX-License-Identifier: Apache-2.0

package dns

import "time"

const (
	// TTL is how many seconds an answer may be kept, a refusal too: a reload of
	// the policy is seen soon.
	TTL = 10
	// MaxNames bounds the names that have an address; the one that was not used
	// for longest loses its own.
	MaxNames = 4096
	// MaxNewNames is how many names a second get an address, and NewNamesBurst how
	// many at once. An address is given again only after all others were, which at
	// this rate takes over eight minutes.
	MaxNewNames   = 256
	NewNamesBurst = 1024
	// MaxQuestions is how many questions a second are read, and QuestionsBurst how
	// many at once. Over UDP the rest is dropped, over TCP the connection is closed.
	MaxQuestions   = 2000
	QuestionsBurst = 2000
	// MaxConnections bounds the TCP connections of one listener, and
	// MaxConnectionQuestions the questions of one connection.
	MaxConnections         = 64
	MaxConnectionQuestions = 128
	// IdleTimeout ends a TCP connection that asks nothing.
	IdleTimeout = 5 * time.Second
	// MaxUDP is the longest message over UDP, as DNS Flag Day 2020 has it.
	MaxUDP = 1232

	// stopTimeout is how long open connections may take to end.
	stopTimeout = time.Second
)
