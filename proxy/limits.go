// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"openshell.dev/runtime/proxy/inspect"
	"openshell.dev/runtime/proxy/upstream"
)

// Limits of one sandbox's connections.
const (
	// MaxConnections bounds the open connections of a sandbox. Further connections wait in
	// the queues of the listeners. If the process may not open enough descriptors, the
	// bound is lower.
	MaxConnections = 8192
	// descriptors is the largest number of descriptors that one connection needs: its
	// own, and one to the other side or two to a resolver.
	descriptors = 3
	// reservedDescriptors is the number of descriptors for everything else: listeners,
	// logs, commands, name queries, pipes, and addresses that are tried in parallel.
	reservedDescriptors = 128 + 2*maxPipes + upstream.MaxExtraAttempts
	// pipeSize is the capacity of a pipe for spliced connections, in bytes: the largest
	// that the kernel allows without privileges.
	pipeSize = 1 << 20
	// maxPipes bounds the pipes of a sandbox. The kernel allows a user 64 pipes of
	// pipeSize (pipe-user-pages-soft). An unused pipe stays open for tidyAfter.
	maxPipes = 16
	// MaxHead bounds the head of a request, in bytes. It has room for large cookies and
	// tokens, and is at least what servers commonly accept (8 to 64 KiB). A head has at
	// most [inspect.MaxFields] fields.
	MaxHead = 64 << 10
	// smallHead is the size of the buffer that a request's head is read into first, in
	// bytes. A longer head gets a buffer of MaxHead bytes.
	smallHead = 16 << 10
	// maxHead2 is the size of the largest head of an HTTP/2 request that the proxy reads to
	// answer it with 431, in bytes. A larger head ends its connection.
	maxHead2 = 2 * MaxHead
	// maxFields2 is the number of fields that such a head may have.
	maxFields2 = 2 * inspect.MaxFields
	// maxRouterHead bounds the head of a request over HTTP/1 to the router, in bytes.
	maxRouterHead = 16 << 10
	// MaxResponseHead bounds the head of a response over HTTP/1, in bytes. curl accepts
	// 300 KB. The proxy takes memory for a head while it reads it.
	MaxResponseHead = 256 << 10
	// maxResponseHead2 bounds the head of a response over HTTP/2, in bytes. It is smaller,
	// because a head for which there is no memory is decoded all the same before the
	// library drops it.
	maxResponseHead2 = 64 << 10
	// HeadTimeout bounds the time in which the head of a request, or a ClientHello, must
	// arrive.
	HeadTimeout = 30 * time.Second
	// IdleTimeout bounds the time between two requests on a connection, and before
	// the first.
	IdleTimeout = 5 * time.Minute
	// HandshakeTimeout bounds one TLS handshake on either leg.
	HandshakeTimeout = 15 * time.Second
	// ServerFirst is the time after which the proxy connects a silent client to the other
	// side, because the server may be the one that speaks first.
	ServerFirst = 300 * time.Millisecond
	// FirstLineTimeout bounds the time in which a client that does not speak TLS must end its
	// first line. After it the proxy carries the bytes so far if they do not begin a request:
	// clients of some protocols send a word without an end of line and wait for the server. It
	// stops them if the rest of the line makes a request of them ([inspect.Line]).
	FirstLineTimeout = 300 * time.Millisecond
	// BodyTimeout bounds the time in which a client must send a body that a middleware
	// reads as a whole.
	BodyTimeout = 60 * time.Second
	// IdentityAge is the age up to which the identity of the client's program is used to
	// judge a request without a new look-up.
	IdentityAge = time.Second
	// identityRenewal is the age from which on the proxy renews an identity that is in use,
	// in the background.
	identityRenewal = IdentityAge * 7 / 10
	// MaxStreams bounds the concurrent requests on one HTTP/2 connection.
	MaxStreams = 128
	// MaxSessions bounds the TLS sessions with upstreams that are kept for resumption.
	MaxSessions = 256
	// MaxText bounds a text message on a WebSocket, in bytes. The proxy keeps the message
	// until it has judged it. OpenShell has the same limit.
	MaxText = 4 << 20
	// textCopies is the number of copies of a text message in memory: as received and as
	// sent.
	textCopies = 2
	// bodyCopies is the number of copies of a body in memory while a middleware works on
	// it, in addition to the body that was read: the one sent to the service and the one
	// that comes back.
	bodyCopies = 2
	// TextTimeout bounds the time in which the rest of a text message must arrive.
	TextTimeout = 2 * time.Minute
	// maxInterim bounds the number of 1xx answers before the final one.
	maxInterim = 16
	// maxDrain, in bytes, and drainTime bound how much of a refused request is still read,
	// so that the client gets the refusal and not a reset.
	maxDrain  = 256 << 10
	drainTime = time.Second
	// closeTime bounds the time that a server may take to read the end of TLS when its
	// connection is closed.
	closeTime = 250 * time.Millisecond
	// quietAfter is the time without a request after which a connection releases its
	// buffer, and tidyAfter the time after which that memory is returned to the system.
	quietAfter = time.Second
	tidyAfter  = 3 * time.Second
	// smallAnswer is the size of the largest body that is sent together with its head, in
	// bytes.
	smallAnswer = 2 << 10
	// upstreamBuffer is the size of a buffer for answers, in bytes.
	upstreamBuffer = 4 << 10
	// copyBuffer is the size of the buffer that bodies are copied with, in bytes.
	copyBuffer = 32 << 10
	// maxGreeting bounds the first read from a server that speaks first, in bytes.
	maxGreeting = 4 << 10
	// settleTime is the time in which the rest of a request may be sent after its answer
	// has ended. Then its connection is closed. A busy machine must not close the
	// connection of a client that has sent everything.
	settleTime = time.Second
	// goneAfter is the time without an answer after which the proxy checks whether the
	// client is still connected.
	goneAfter = time.Second
)

// Memory costs, in bytes. The budget of the worker counts with them; see package memory.
// The costs of fields, heads and requests are measured with the heap profile. Those of
// connections, handshakes, TLS and the router are estimates, rounded up.
const (
	// connectionCost is for a connection without TLS and without a request: its
	// goroutines, its state and two small buffers.
	connectionCost = 24 << 10
	// smallPipeBuffer is the size of the buffer of a connection that is carried unread, if
	// there is no memory for a buffer of copyBuffer bytes.
	smallPipeBuffer = 2 << 10
	// openingCost is for the first bytes of a connection, by which it is classified.
	openingCost = 80 << 10
	// handshakeCost is for TLS handshakes on both legs: the ClientHello, which is kept
	// twice, and the server's certificates.
	handshakeCost = 192 << 10
	// tlsCost is for TLS on both legs of a connection.
	tlsCost = 48 << 10
	// http2Cost is for HTTP/2 on both legs, including the bytes that the client may send
	// before the proxy reads them (uploadWindow).
	http2Cost = 32<<10 + uploadWindow
	// fieldCost is for one field of a head without its bytes. byteCost is for each byte of
	// a field, which is in memory as received and as sent.
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
	// usualHeadCost is the part of exchangeCost that is for such a head.
	usualHeadCost = usualFields*fieldCost + usualHead*byteCost
	// maxAnswerBytes and maxAnswerFields are the size of the largest head of an answer that
	// the library decodes. It counts 32 bytes more for each field, and the fields named
	// Trailer by themselves.
	maxAnswerBytes  = 2 * maxResponseHead2
	maxAnswerFields = maxAnswerBytes / 32
	// streamCost is for a request whose head has not been read.
	streamCost = exchangeCost + maxHeadCost
)

const (
	// keptUpload bounds the part of a body that is kept so that a request over HTTP/2 can
	// be sent again, in bytes. It is the initial window of the protocol, which a body may
	// fill before the server reads any of it. maxRepeats bounds the repetitions of a
	// request.
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
	// and refusalTime the time that each may take. Further ones lose their connection. It
	// is also the time in which the library must give up a stream for whose answer there is
	// no memory.
	maxRefusals = 16
	refusalTime = 2 * time.Second
)

// timeouts bound how long the proxy waits for a client.
type timeouts struct {
	head, idle, handshake, serverFirst, gone time.Duration
}

var defaultTimeouts = timeouts{HeadTimeout, IdleTimeout, HandshakeTimeout, ServerFirst, goneAfter}
