// SPDX-License-Identifier: Apache-2.0

package inspect

// What is read of a client at most before it is judged.
const (
	// MaxHello bounds a ClientHello as it comes over the wire, record headers
	// included. Post-quantum key shares and a long SNI fit many times.
	MaxHello = 64 << 10
	// MaxMethod bounds a method; the longest registered one has 17 bytes.
	MaxMethod = 32
	// MaxFields bounds the number of fields of one head.
	MaxFields = 256

	// maxEmptyLines is how many empty lines before a request are dropped: RFC 9112, section
	// 2.2, asks for one, which old clients send after a body.
	maxEmptyLines = 1
	// maxBlank is how many blanks are skipped before the first word of a connection. No known
	// protocol begins with as many, so more are HTTP1, which CheckHead refuses.
	maxBlank = 64
	// maxControls is how many control bytes, without blanks and NUL, a first line of text may
	// have. More are a binary protocol: one byte may come before a method, and the second byte
	// of SOCKS and the third or fourth of LDAP exceed the limit.
	maxControls = 1
	// maxRecord is the longest plaintext record (RFC 8446, section 5.1).
	maxRecord = 1 << 14
	// maxExtensions bounds the extensions of a ClientHello, which are compared
	// with each other. Browsers send about twenty.
	maxExtensions = 128
	// maxLengthDigits keeps a Content-Length within an int64.
	maxLengthDigits = 18
)
