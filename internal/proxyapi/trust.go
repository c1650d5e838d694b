// SPDX-License-Identifier: Apache-2.0

package proxyapi

import "time"

// TrustStores are the certificate stores of one container.
type TrustStores struct {
	// Root is the root filesystem on the host.
	Root    string        `json:"root,omitempty"`
	Folders []TrustFolder `json:"folders,omitempty"`
	// Files are on the host. The container has each of them mounted, read-only, over a
	// store whose folder cannot be an overlay.
	Files []string `json:"files,omitempty"`
}

// Inode identifies a folder on the host, also after it was renamed.
type Inode struct {
	Device uint64 `json:"device"`
	Number uint64 `json:"number"`
}

// TrustFolder is a folder that the container sees through an overlay: the image's is the
// lower layer, and the upper one is in memory, for this sandbox alone.
type TrustFolder struct {
	// Path is in the container. No part of it is a link.
	Path string `json:"path"`
	// View is the overlay on the host, until the container has it, and Upper its upper
	// layer. If the image does not have the folder there is no overlay, and View is Upper.
	View  string `json:"view"`
	Upper string `json:"upper"`
	// Device is the overlay's device number.
	Device uint64 `json:"device"`
	// Layer is the folder of the container's layer that the overlay covers (trust.FindLayers).
	// Nothing is written into another folder, and nothing at all if it is zero.
	Layer Inode `json:"layer,omitzero"`
	// Stores are paths below Path.
	Stores []string `json:"stores"`
	// Made is the topmost folder of Path that the image does not have: it is made for the
	// mount, and removed at the end if the container has left nothing in it. Empty if the
	// image has them all. MadeIn is the time at which the folder above it had last changed;
	// it gets this time again when Made is removed.
	Made   string    `json:"made,omitempty"`
	MadeIn time.Time `json:"madeIn,omitzero"`
}
