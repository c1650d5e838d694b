// SPDX-License-Identifier: Apache-2.0

package guard

import "time"

// Limits of what the guard is told.
const (
	// workerPatience bounds the wait for the worker to use new secrets; one that is
	// being replaced comes back well within it.
	workerPatience = 10 * time.Second
	// standbyPatience bounds telling the standby, which only reads.
	standbyPatience = 2 * time.Second
	// headerPatience and requestPatience bound a request to the guard's socket.
	headerPatience  = 5 * time.Second
	requestPatience = 30 * time.Second
	// maxSpeakers are served at once, maxHeader bytes of header are read of each.
	maxSpeakers = 8
	maxHeader   = 16 << 10
	// socketTimeout bounds the worker's wait for a socket, which the guard makes at once.
	socketTimeout = 5 * time.Second
	// refresherPoll is the pause between two looks whether there is a refresher.
	refresherPoll = 5 * time.Second
)
