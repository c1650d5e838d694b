// SPDX-License-Identifier: Apache-2.0

package decisionlog

import "time"

const (
	// MaxBytes is how long one file becomes, and MaxFiles how many there are, with
	// the one that is written to. With three or more the oldest is kept.
	MaxBytes = 16 << 20
	MaxFiles = 4
	// refusalRate and refusalBurst bound the records of all refusals, in bytes a second
	// and in bytes at once. The burst has room for some 2000 usual records; at the rate,
	// three files, all but the oldest, last for two days or more.
	refusalRate  = 256
	refusalBurst = 1 << 20
	// ownRecords is how many refusals of one kind have records of their own before they
	// are counted: a person who tries again sees each attempt at once.
	ownRecords = 4
	// placeRate and placeBurst are the parts of refusalRate and refusalBurst that are for
	// the first refusal of a new place (layer, host, port and program), so that a flood
	// of refusals at one host does not hide another host: some 200 new places at once.
	placeRate  = 64
	placeBurst = 128 << 10
	// reservedBytes is the part of the burst for records that count, in bytes.
	reservedBytes = 64 << 10
	// foldInterval is the time between two records that count refusals of one kind: soon
	// enough for a person who watches.
	foldInterval = 10 * time.Second
	// maxKinds bounds the kinds of refusals that are counted at a time. Each keeps up to
	// seven texts of MaxField bytes: 4 MiB in all at most, usually 300 KiB.
	maxKinds = 512
	// placeKinds of maxKinds are for the first refusals of new places.
	placeKinds = 128
	// maxGroups bounds the layers and policies by which refusals of other kinds are
	// counted; beyond it they are counted by layer alone.
	maxGroups = 16
	// lineOverhead is more than the bytes of a line that are not its record's texts: names
	// of fields, numbers, times.
	lineOverhead = 512
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
