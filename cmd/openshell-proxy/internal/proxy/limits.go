// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/inspect"
	"openshell.dev/runtime/cmd/openshell-proxy/internal/upstream"
)

// Limits of one sandbox's connections.
const (
	// MaxConnections bounds the open connections of a sandbox; more wait in the
	// listeners' queue. Fewer if the process may not open descriptors enough.
	MaxConnections = 8192
	// descriptors is how many one connection needs at most: its own, and one to
	// the other side or two to a resolver.
	descriptors = 3
	// reservedDescriptors are left for all else: listeners, logs, commands, names,
	// pipes, addresses that are tried side by side.
	reservedDescriptors = 128 + 2*maxPipes + upstream.MaxExtraAttempts
	// pipeSize is what a pipe for spliced connections holds, in bytes: as much as one
	// may without privileges.
	pipeSize = 1 << 20
	// maxPipes bounds the pipes of a sandbox: the kernel grants a user 64 of that
	// size (pipe-user-pages-soft). They stay open for tidyAfter.
	maxPipes = 16
	// MaxHead bounds a request's head, in bytes: what large cookies and tokens need, and
	// more than servers commonly accept (8 to 64 KiB). It also has at most
	// [inspect.MaxFields] fields.
	MaxHead = 64 << 10
	// smallHead is the size of the buffer that a request's head is read into first, in
	// bytes. A longer head gets a buffer of MaxHead bytes.
	smallHead = 16 << 10
	// maxHead2 is how large an HTTP/2 request's head may be, in bytes, to be read and answered
	// with 431. A larger one ends its connection.
	maxHead2 = 2 * MaxHead
	// maxFields2 is how many fields it may have then.
	maxFields2 = 2 * inspect.MaxFields
	// maxRouterHead bounds a request's head over HTTP/1 to the router, in bytes.
	maxRouterHead = 16 << 10
	// MaxResponseHead bounds a response's head over HTTP/1, in bytes: nearly what curl
	// accepts (300 KB). The memory for it is taken as it comes.
	MaxResponseHead = 256 << 10
	// maxResponseHead2 bounds a response's head over HTTP/2, in bytes. The library keeps a
	// head of each stream before memory is taken for it.
	maxResponseHead2 = 64 << 10
	// HeadTimeout bounds the time a request's head, or a ClientHello, may take.
	HeadTimeout = 30 * time.Second
	// IdleTimeout bounds the time between two requests on a connection, and before
	// the first.
	IdleTimeout = 5 * time.Minute
	// HandshakeTimeout bounds one TLS handshake on either leg.
	HandshakeTimeout = 15 * time.Second
	// ServerFirst is how long a connection may be silent before the other side is
	// asked whether it speaks first.
	ServerFirst = 300 * time.Millisecond
	// BodyTimeout bounds the time in which a client must send a body that is read
	// whole, for middlewares.
	BodyTimeout = 60 * time.Second
	// IdentityAge is how old the answer to "which program is this" may be when a
	// request is judged by it.
	IdentityAge = time.Second
	// identityRenewal is the age at which a used answer is asked for again at the
	// earliest, beside the requests.
	identityRenewal = IdentityAge * 7 / 10
	// MaxStreams bounds the concurrent requests on one HTTP/2 connection.
	MaxStreams = 128
	// MaxSessions bounds the upstreams' TLS sessions that are kept for resumption.
	MaxSessions = 256
	// MaxText bounds a text message on a WebSocket, which is kept until it was
	// judged. OpenShell has the same limit.
	MaxText = 4 << 20
	// textCopies is how often a text message is in memory: as it came and as it is sent.
	textCopies = 2
	// bodyCopies is how often a body is in memory while a middleware works on it,
	// beside the one that was read: as it is sent to a service, and as it comes back.
	bodyCopies = 2
	// TextTimeout bounds the time that the rest of a text message may take.
	TextTimeout = 2 * time.Minute
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 16
	// maxDrain and drainTime bound what is read of a request that was refused,
	// so that its sender sees the refusal and not a reset.
	maxDrain  = 256 << 10
	drainTime = time.Second
	// quietAfter is how long a connection is without a request before it gives its
	// buffer back, and tidyAfter when that memory is given to the system.
	quietAfter = time.Second
	tidyAfter  = 3 * time.Second
	// smallAnswer is the longest body that an answer's head may wait for, in bytes.
	smallAnswer = 2 << 10
	// upstreamBuffer is the size of a buffer for answers, in bytes.
	upstreamBuffer = 4 << 10
	// copyBuffer is the size of a body's chunks, in bytes.
	copyBuffer = 32 << 10
	// maxGreeting is how much of what a server says first is read at once.
	maxGreeting = 4 << 10
	// settleTime is how long a request may still be sent when its answer has ended. After
	// that its connection is closed, which a client that has sent everything does not
	// expect: it is long enough for a busy machine.
	settleTime = time.Second
	// goneAfter is how long an answer may take before the client is looked after.
	goneAfter = time.Second
)

// The memory that things take, in bytes. The worker's budget counts these numbers; see
// package memory. Those of fields, heads and requests are measured with the heap's
// profile; those of connections, handshakes, TLS and the router are estimates, rounded
// up.
const (
	// connectionCost is for a connection without TLS and without a request: its
	// goroutines, its state and two small buffers.
	connectionCost = 24 << 10
	// smallVessel is the size of a buffer for a connection that is carried as it is,
	// if there is no memory for one of copyBuffer bytes.
	smallVessel = 2 << 10
	// openingCost is for the first bytes of a connection, which are looked at.
	openingCost = 80 << 10
	// handshakeCost is for TLS handshakes on both legs: the ClientHello, which is kept
	// twice, and the server's certificates.
	handshakeCost = 192 << 10
	// tlsCost is for TLS on both legs of a connection.
	tlsCost = 48 << 10
	// http2Cost is for HTTP/2 on both legs, with what the client may send before it is
	// read (uploadWindow).
	http2Cost = 32<<10 + uploadWindow
	// fieldCost is for one field of a head, beside its bytes; byteCost is for each
	// byte of a field, which is kept as it came and as it is sent.
	fieldCost = 256
	byteCost  = 2
	// maxHeadCost is for a head of [smallHead] bytes with as many fields as there may be.
	maxHeadCost = maxFields2*fieldCost + smallHead*byteCost
	// largeHeadCost is for a longer head over HTTP/1: its buffer and its bytes.
	largeHeadCost = MaxHead + (MaxHead-smallHead)*byteCost
	// maxFieldBytes is [maxHead2] as a [http.Server] of HTTP/2 takes it, which adds
	// 320 bytes.
	maxFieldBytes = maxHead2 - 320
	// exchangeCost is for a request and its answer without the request's head: the
	// goroutines, buffers for what is copied, and an answer's head of usual size.
	exchangeCost = 96 << 10
	// routerCost is for a connection to the router over HTTP/1, which has the memory
	// of one request all the time. The number of fields is not bounded there: the
	// smallest has four bytes.
	routerCost = exchangeCost + maxRouterHead/4*fieldCost/2
	// usualFields and usualHead are the size of an answer's head that exchangeCost
	// has room for.
	usualFields = 64
	usualHead   = 8 << 10
	// streamCost is for a request whose head has not been read.
	streamCost = exchangeCost + maxHeadCost
)

const (
	// keptUpload bounds the part of a body that is kept to be sent again over HTTP/2, in
	// bytes: what a server may be sent of a request before it looks at it (the protocol's
	// first window). maxRepeats bounds the repetitions of a request.
	keptUpload = uploadWindow
	maxRepeats = 8
	// repeatTime is how long a client may take to send more of a body that is to be sent
	// again, and repeatPause the first pause before a request goes over the same connection
	// again. Each further pause is twice as long.
	repeatTime  = 2 * time.Second
	repeatPause = 5 * time.Millisecond
	// uploadWindow is how much of bodies one HTTP/2 client may send before it is
	// read, in bytes: the smallest that the protocol begins with.
	uploadWindow = 1<<16 - 1
	// frameSize is the largest HTTP/2 frame that is read, in bytes: the smallest limit
	// that the protocol knows.
	frameSize = 16 << 10
	// maxOwed bounds the control frames that an HTTP/2 client has asked for and does
	// not read.
	maxOwed = 1000
	// maxRefusals bounds the requests that are refused at a time for want of memory,
	// and refusalTime the time that each may take. Further ones lose their connection.
	maxRefusals = 16
	refusalTime = 2 * time.Second
)

// waits are the times that a client is given.
type waits struct {
	head, idle, handshake, serverFirst, gone time.Duration
}

var usualWaits = waits{HeadTimeout, IdleTimeout, HandshakeTimeout, ServerFirst, goneAfter}
