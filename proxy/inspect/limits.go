// SPDX-License-Identifier: Apache-2.0

package inspect

// What is read of a client at most before it is judged.
const (
	// MaxHello bounds a ClientHello as it comes over the wire, record headers
	// included. Post-quantum key shares and a long SNI fit many times.
	MaxHello = 64 << 10
	// MaxHead is the usual limit for CheckHead: request line and fields.
	MaxHead = 64 << 10
	// MaxMethod bounds a method; the longest registered one has 17 bytes.
	MaxMethod = 32
	// MaxFields bounds the number of fields of one head.
	MaxFields = 256

	// maxEmptyLines is how many empty lines before a request are dropped: RFC 9112, section
	// 2.2, asks for one, which old clients send after a body.
	maxEmptyLines = 1
	// maxBlank is how many bytes of empty lines may come before the request line of HTTP/1:
	// more than maxEmptyLines, so that such a request is refused as HTTP. After more bytes
	// the connection counts as another protocol.
	maxBlank = 8
	// maxRecord is the longest plaintext record (RFC 8446, section 5.1).
	maxRecord = 1 << 14
	// maxExtensions bounds the extensions of a ClientHello, which are compared
	// with each other. Browsers send about twenty.
	maxExtensions = 128
	// maxLengthDigits keeps a Content-Length within an int64.
	maxLengthDigits = 18
)
