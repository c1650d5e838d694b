// SPDX-License-Identifier: Apache-2.0

package credentials

import "time"

const (
	// MaxKey bounds a credential's key.
	MaxKey = 128
	// MaxValue bounds a credential's value. Tokens with many claims reach 8 KiB,
	// and no server takes longer header lines.
	MaxValue = 16 << 10
	// MinScrub is the length from which on a value is masked in responses. A
	// shorter one is found in ordinary text, which masking would destroy.
	MinScrub = 8
	// MaxPast bounds the values that a sandbox had and that are still masked. The oldest
	// are forgotten, because the search takes longer with each value.
	MaxPast = 128
	// pastGrace is how long a value is masked after it has expired: a service whose clock
	// is late still accepts it.
	pastGrace = time.Hour
	// MaxRewriteBody bounds a body of known length that is rewritten, because its
	// new length must be known before it is sent. OpenShell has the same limit.
	MaxRewriteBody = 256 << 10
	// MaxCompressedBody bounds a compressed request body, which is kept until it
	// was searched.
	MaxCompressedBody = 256 << 10
	// MaxDecompressed bounds what a compressed request body may decompress to.
	MaxDecompressed = 32 << 20
	// MaxSignedBody bounds a body that is kept until it was hashed for its
	// signature. OpenShell has the same limit.
	MaxSignedBody = 10 << 20
	// MinEdge is the shortest piece of a value that is masked at the beginning or the end
	// of a part of an answer, in bytes. Two edges together show less than MinScrub bytes of
	// a value.
	MinEdge = 4
	// MinPart is the shortest part that may be asked for from the middle of an answer, in
	// bytes. It is longer than a value of MaxValue bytes in each of its writings, so that no
	// part lies within a value. Parts at the beginning or at the end of an answer have one
	// cut only, and may be shorter.
	MinPart = 128 << 10
	// MaxLayers bounds the layers of compression that are opened: a Content-Encoding, a
	// compressed file, or a compressed file within a Content-Encoding.
	MaxLayers = 2
	// MaxHeldAnswer bounds the compressed bytes that wait until their expansion was
	// searched. A block of zstd has 128 KiB, a window of deflate 32 KiB.
	MaxHeldAnswer = 512 << 10
	// MaxExpansion bounds how many bytes one compressed byte of an answer expands to,
	// on average, once FreeExpansion bytes were expanded: files are rarely compressed
	// to less than a hundredth, and the search costs time by the expanded byte.
	MaxExpansion = 256
	// FreeExpansion is how many bytes an answer may expand to before MaxExpansion counts.
	FreeExpansion = 16 << 20
	// maxWindow bounds the window of zstd, in bytes, as RFC 9659 does for a
	// Content-Encoding.
	maxWindow = 8 << 20

	// minWindow is the smallest bound of the window for a zstd decoder, in bytes.
	minWindow = 128 << 10

	// inflateCost is the memory of a decoder of gzip or deflate, in bytes, as measured.
	inflateCost = 64 << 10
	// zstdLeast is the memory of a zstd decoder beside its window, in bytes. It has the
	// window twice, the second time up to zstdMore bytes.
	zstdLeast = 128 << 10
	zstdMore  = 2 << 20

	// maxAliasPrefix bounds what may precede the marker in an alias token.
	maxAliasPrefix = 128
	// window is how much of a stream is looked at in one go.
	window = 16 << 10
)
