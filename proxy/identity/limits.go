// SPDX-License-Identifier: Apache-2.0

package identity

import "time"

const (
	// maxAttempts is how often a lookup is tried while processes keep changing.
	maxAttempts = 5
	// pause is the time between attempts.
	pause = 2 * time.Millisecond
	// maxConcurrent bounds the lookups that run at once, each of which may hold up
	// one thread in a file system call. Lookups that wait share one search, so a higher
	// bound means fewer searches.
	maxConcurrent = 256
	// patience is how long a lookup waits for its turn.
	patience = 10 * time.Second

	// maxProcesses and maxDescriptors bound the search for holders. A container
	// with more makes no connections.
	maxProcesses   = 8192
	maxDescriptors = 1 << 18
	// maxHolders bounds the descriptions of the holders of one socket.
	maxHolders = 256
	// maxAncestors is OpenShell's bound on the list of parents.
	maxAncestors = 64
	// maxInterfaces bounds the interfaces at which a socket is looked up.
	maxInterfaces = 256
	// maxCgroupDepth bounds the depth of cgroups below the container's.
	maxCgroupDepth = 32

	// maxExecutable is the size in bytes of the largest program that is hashed.
	maxExecutable = 1 << 30
	// maxDigests bounds the cache of digests; more programs are hashed again.
	maxDigests = 4096
	// maxPins bounds the paths whose first digest is kept. A container that runs
	// more programs makes no connections with the rest: forgetting one would let
	// it change.
	maxPins = 16384
	// settled is how old the last change of a file must be for its digest to be
	// cached: younger changes may share a time stamp with the next one.
	settled = time.Second

	// maxProcFile bounds what is read of /proc/PID/stat and /proc/PID/cgroup.
	maxProcFile = 64 << 10
	// maxCmdline and maxArgs bound the command line, in bytes and arguments.
	maxCmdline = 4 << 10
	maxArgs    = 64
)
