// SPDX-License-Identifier: Apache-2.0

package image

// Limits of an image.
const (
	// MaxUnpacked bounds the files of all layers together, and also what the layers
	// decompress to, in bytes.
	MaxUnpacked = 32 << 30
	// MaxEntries bounds the entries of all layers together, MaxLayers the layers.
	MaxEntries = 2_000_000
	MaxLayers  = 256
	// MaxDocument bounds an index, a manifest or a configuration, in bytes.
	MaxDocument = 4 << 20
	// MaxBlobs bounds the files of an OCI tar.
	MaxBlobs = 10_000
	// MaxNesting bounds the indexes within indexes.
	MaxNesting = 3
)
