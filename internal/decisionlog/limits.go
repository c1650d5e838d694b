// SPDX-License-Identifier: Apache-2.0

package decisionlog

import "time"

const (
	// MaxBytes is how long one file becomes, and MaxFiles how many there are, with
	// the one that is written to.
	MaxBytes = 16 << 20
	MaxFiles = 4
	// MaxQueue is how many records may wait to be written; more are dropped.
	MaxQueue = 1024
	// MaxField bounds a text of a record in bytes, and MaxAncestors their number.
	// What was longer ends in an ellipsis.
	MaxField     = 1024
	MaxAncestors = 16
	// MaxLine bounds what Read takes for a line; every record fits, with each of
	// its bytes escaped.
	MaxLine = 256 << 10

	// maxBatch is how much is gathered for one write.
	maxBatch = 64 << 10
	// pace is the time between two writes: a wakeup and a write for each record
	// cost more than the record. With crowded in the queue nothing is waited for.
	pace    = 5 * time.Millisecond
	crowded = MaxQueue / 8
)
