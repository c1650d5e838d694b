// SPDX-License-Identifier: Apache-2.0

package provider

const (
	// MaxProfile bounds a profile, in bytes.
	MaxProfile = 256 << 10
	// MaxCredentials bounds the credentials of one profile.
	MaxCredentials = 64
	// MaxEndpoints bounds the endpoints of one profile.
	MaxEndpoints = 1024
	// MaxValue bounds one credential, in bytes: a service account's key fits, and
	// the proxy takes no longer one.
	MaxValue = 16 << 10
	// maxSeconds bounds the times of a profile's refresh: a year.
	maxSeconds = 366 * 24 * 60 * 60
	// MaxStored bounds one provider's file, in bytes.
	MaxStored = 8 << 20
)
