// SPDX-License-Identifier: Apache-2.0

package credentials

import "time"

const (
	// MaxKey bounds the key of a credential, in bytes.
	MaxKey = 128
	// MaxValue bounds the value of a credential, in bytes. Tokens with many claims reach
	// 8 KiB, and servers do not accept longer header lines than 16 KiB.
	MaxValue = 16 << 10
	// MinScrub is the length of the shortest value that is masked in answers, in bytes.
	// Shorter values appear in ordinary text by chance, and masking would damage it.
	MinScrub = 8
	// MaxPast is the number of former values of a sandbox that are still masked. Older
	// ones are forgotten, because each value makes the search slower.
	MaxPast = 128
	// pastGrace is how long a value is masked after it has expired: a service whose clock
	// is slow still accepts it.
	pastGrace = time.Hour
	// MaxRewriteBody bounds a request body of known length that is rewritten, in bytes.
	// The proxy keeps it, because it sends the new length first. OpenShell has the same
	// limit.
	MaxRewriteBody = 256 << 10
	// MaxCompressedBody bounds a compressed request body, in bytes. The proxy keeps the
	// body until it has searched it.
	MaxCompressedBody = 256 << 10
	// MaxDecompressed bounds the decompressed size of a request body, in bytes.
	MaxDecompressed = 32 << 20
	// MaxSignedBody bounds a request body that is signed, in bytes. The proxy keeps the
	// body until it has hashed it. OpenShell has the same limit.
	MaxSignedBody = 10 << 20
	// MinEdge is the shortest piece of a value that is masked at the beginning or the end
	// of a part of an answer, in bytes. Two edges together show less than MinScrub bytes of
	// a value.
	MinEdge = 4
	// MinPart is the size of the smallest range that a request may ask for in the middle of
	// an answer, in bytes. It is larger than a value of MaxValue bytes in any writing, so
	// that no range lies within a value. A range at the beginning or the end of an answer
	// has only one cut and may be smaller.
	MinPart = 128 << 10
	// MaxLayers is the number of layers of compression that are expanded: a
	// Content-Encoding, a compressed file, or both.
	MaxLayers = 2
	// MaxHeldAnswer bounds the compressed bytes of an answer that the proxy keeps until it
	// has searched their expansion. A block of zstd has at most 128 KiB, a window of
	// deflate 32 KiB.
	MaxHeldAnswer = 512 << 10
	// MaxExpansion bounds the average number of bytes that one compressed byte of an answer
	// expands to, beyond the first FreeExpansion bytes. Real files rarely exceed 100, and
	// the search takes time for each expanded byte.
	MaxExpansion = 256
	// FreeExpansion is the expanded size of an answer below which MaxExpansion does not
	// apply, in bytes.
	FreeExpansion = 16 << 20
	// maxWindow bounds the window of zstd, in bytes, as RFC 9659 does for a
	// Content-Encoding.
	maxWindow = 8 << 20

	// minWindow is the smallest bound of the window for a zstd decoder, in bytes.
	minWindow = 128 << 10

	// inflateCost is the memory of a decoder of gzip or deflate, in bytes, as measured.
	inflateCost = 64 << 10
	// zstdLeast is the memory of a zstd decoder without its window, in bytes. The decoder
	// has two copies of the window, the second one of at most zstdMore bytes.
	zstdLeast = 128 << 10
	zstdMore  = 2 << 20

	// maxAliasPrefix bounds the text before the marker in an alias token, in bytes.
	maxAliasPrefix = 128
	// window is the number of bytes of a stream that are searched at a time.
	window = 16 << 10
)
