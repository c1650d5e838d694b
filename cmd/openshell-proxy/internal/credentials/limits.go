// SPDX-License-Identifier: Apache-2.0

package credentials

const (
	// MaxKey bounds a credential's key.
	MaxKey = 128
	// MaxValue bounds a credential's value. Tokens with many claims reach 8 KiB,
	// and no server takes longer header lines.
	MaxValue = 16 << 10
	// MinScrub is the length from which on a value is masked in responses. A
	// shorter one is found in ordinary text, which masking would destroy.
	MinScrub = 8
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
	// MaxSigning bounds all bodies that are kept for that at a time.
	MaxSigning = 64 << 20

	// maxAliasPrefix bounds what may precede the marker in an alias token.
	maxAliasPrefix = 128
	// window is how much of a stream is looked at in one go.
	window = 16 << 10
)
