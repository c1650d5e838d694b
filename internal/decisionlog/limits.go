// SPDX-License-Identifier: Apache-2.0

package decisionlog

import "time"

const (
	// MaxBytes is the largest size of one file in bytes. MaxFiles is the number of files of
	// one log, including the current one. With three or more files, the oldest one is never
	// removed.
	MaxBytes = 16 << 20
	MaxFiles = 4
	// refusalRate and refusalBurst limit the records of all refusals, in bytes per second
	// and in bytes at once. The burst is enough for about 2000 usual records. At the rate,
	// three files without the oldest last for at least two days.
	refusalRate  = 256
	refusalBurst = 1 << 20
	// ownRecords is the number of refusals of one kind with records of their own, before
	// further ones are counted. A person who repeats an action sees each attempt at once.
	ownRecords = 4
	// placeRate and placeBurst are the parts of refusalRate and refusalBurst for the first
	// refusals of new places (layer, host, port and program), so that a flood of refusals
	// at one host does not hide another host. They are enough for about 200 new places at
	// once.
	placeRate  = 64
	placeBurst = 128 << 10
	// reservedBytes is the part of the burst for records that report counts, in bytes.
	reservedBytes = 64 << 10
	// foldInterval is the time between two records that report the count of one kind. It is
	// short enough for a person who follows the log.
	foldInterval = 10 * time.Second
	// maxKinds is the largest number of kinds that are counted at the same time. Each holds
	// up to seven strings of MaxField bytes: at most 4 MiB in all, usually 300 KiB.
	maxKinds = 512
	// placeKinds is the part of maxKinds for the first refusals of new places.
	placeKinds = 128
	// maxGroups is the largest number of combinations of layer and policy by which refusals
	// of other kinds are counted. Beyond it they are counted by layer alone.
	maxGroups = 16
	// lineOverhead is an upper limit for the bytes of a line that are not strings of its
	// record: field names, numbers, times.
	lineOverhead = 512
	// MaxQueue is the largest number of records that wait to be written. Further records
	// are dropped and counted.
	MaxQueue = 1024
	// MaxField is the largest length of each string of a record in bytes; longer ones are
	// cut and end in an ellipsis. MaxAncestors is the largest number of ancestors.
	MaxField     = 1024
	MaxAncestors = 16
	// MaxLine is the length of the longest line that Read accepts, in bytes. Every record
	// fits, even if each of its bytes is escaped.
	MaxLine = 256 << 10

	// maxBatch is the size in bytes from which a batch of lines is written.
	maxBatch = 64 << 10
	// pace is the pause between two writes: a wakeup and a write for each record would cost
	// more than the record. There is no pause if at least crowded records are in the queue.
	pace    = 5 * time.Millisecond
	crowded = MaxQueue / 8
)
