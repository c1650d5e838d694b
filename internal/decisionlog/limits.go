// SPDX-License-Identifier: Apache-2.0

package decisionlog

import "time"

const (
	// MaxBytes is the largest size of one file, in bytes, and MaxFiles the number of files
	// of one log, including the file that is written to. Of three or more files, the oldest
	// is kept when a file must go.
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
	// foldInterval is the time between two records that count refusals of one kind. A
	// person who follows the log sees them soon enough.
	foldInterval = 10 * time.Second
	// maxKinds bounds the kinds of refusals that are counted at a time. Each keeps up to
	// seven texts of MaxField bytes: 4 MiB in all at most, usually 300 KiB.
	maxKinds = 512
	// placeKinds of maxKinds are for the first refusals of new places.
	placeKinds = 128
	// maxGroups bounds the layers and policies by which refusals of other kinds are
	// counted; beyond it they are counted by layer alone.
	maxGroups = 16
	// lineOverhead is an upper bound for the bytes of a line that are not texts of its
	// record: names of fields, numbers, times.
	lineOverhead = 512
	// MaxQueue is the number of records that may wait to be written. Further ones are
	// dropped and counted.
	MaxQueue = 1024
	// MaxField bounds each text of a record, in bytes; a longer text is cut and ends in an
	// ellipsis. MaxAncestors bounds the number of ancestors.
	MaxField     = 1024
	MaxAncestors = 16
	// MaxLine bounds a line that Read accepts, in bytes. Every record fits, even if each of
	// its bytes is escaped.
	MaxLine = 256 << 10

	// maxBatch is the number of bytes from which on a batch of lines is written.
	maxBatch = 64 << 10
	// pace is the pause between two writes: a wakeup and a write for each record would cost
	// more than the record. There is no pause while the queue has crowded records or more.
	pace    = 5 * time.Millisecond
	crowded = MaxQueue / 8
)
