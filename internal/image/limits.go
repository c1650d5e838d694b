// SPDX-License-Identifier: Apache-2.0

package image

// Limits of an image.
const (
	// MaxUnpacked is the largest number of bytes of all files together, and also of all
	// decompressed layers together.
	MaxUnpacked = 32 << 30
	// MaxEntries is the largest number of entries of all layers together, and MaxLayers
	// that of layers.
	MaxEntries = 2_000_000
	MaxLayers  = 256
	// MaxDocument is the largest size of an index, a manifest or a configuration in bytes.
	MaxDocument = 4 << 20
	// MaxBlobs is the largest number of files in an OCI tar.
	MaxBlobs = 10_000
	// MaxNesting is the largest depth of indexes within indexes.
	MaxNesting = 3
)
