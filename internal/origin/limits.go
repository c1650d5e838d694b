// SPDX-License-Identifier: Apache-2.0

package origin

import "time"

const (
	// Patience bounds getting one credential, dialPatience reaching the other side.
	Patience     = 30 * time.Second
	dialPatience = 10 * time.Second
	// maxAnswer bounds an answer, maxHeader its header, in bytes: a Kubernetes
	// Secret has at most 1 MiB, which base64 makes a third larger.
	maxAnswer = 2 << 20
	maxHeader = 64 << 10
	// maxError bounds what is said of a failure, in bytes.
	maxError = 500
	// usualLifetime is that of a token whose maker does not say: OpenShell's.
	usualLifetime = time.Hour
)
