// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"openshell.dev/runtime/proxy/memory"
)

// body is the request's body as it is sent. At an endpoint without credentials
// that is what came, searched; elsewhere nothing passes that was not searched.
func (r *resolver) body(o Options, contentType, encoding string, length int64, body io.Reader) (io.Reader, int64, error) {
	if body == nil || length == 0 {
		return http.NoBody, 0, nil
	}
	pl := bodyPlace(contentType)
	framed := strings.Contains(strings.ToLower(encoding), awsChunked)
	rewrite := o.BodyRewrite && pl != nil && !framed
	coding := compression(encoding)
	switch {
	case coding != "":
		if o.AllowUninspected || !r.set.Needed(r.to) {
			return body, length, nil // compressed, it means nothing to a server that has no credential of ours
		}
		return r.compressed(o, coding, length, body)
	case rewrite && length < 0:
		return &rewriter{r: r, src: body, pl: pl}, -1, nil
	case rewrite && length <= MaxRewriteBody:
		return r.whole(pl, length, body)
	case o.AllowUninspected:
		return body, length, nil
	}
	if o.BodyRewrite { // a client that asks for the value must not send the name
		reason := "only JSON, forms and text are rewritten"
		switch {
		case framed: // each chunk has its length and its signature
			reason = "a body in AWS's chunks is not rewritten"
		case rewrite:
			reason = fmt.Sprintf("a body of more than %d bytes is not rewritten", MaxRewriteBody)
		}
		return &scanner{src: body, refuse: func() error { return r.refuse("body", reason) }}, length, nil
	}
	// A conversation with a model repeats each placeholder that was printed in it, also
	// after its provider was detached.
	return &issuedReader{src: body, r: r, neutralize: pl == inJSON && r.set.modelAPI(r.to)}, length, nil
}

// whole rewrites a body of which the new length must be told first.
func (r *resolver) whole(pl *place, length int64, body io.Reader) (io.Reader, int64, error) {
	if err := r.hold.Grow(context.Background(), length); err != nil { // for the rewritten body
		return nil, 0, &BusyError{}
	}
	b, err := r.keep(io.LimitReader(body, length), length, int(length))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(b)) != length {
		return nil, 0, fmt.Errorf("read the request's body: %w", io.ErrUnexpectedEOF)
	}
	out, err := r.resolveAll(b, pl)
	if err != nil {
		return nil, 0, err
	}
	return opaqueReader{Reader: bytes.NewReader(out)}, int64(len(out)), nil
}

// bodyPlace is how placeholders stand in a body of this type, nil if they cannot.
func bodyPlace(contentType string) *place {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	if c := strings.ToLower(params["charset"]); c != "" && c != "utf-8" && c != "us-ascii" && c != "iso-8859-1" {
		return nil
	}
	switch {
	case kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "application/x-ndjson", kind == "application/jsonl":
		return inJSON
	case kind == "application/x-www-form-urlencoded":
		return inForm
	case strings.HasPrefix(kind, "text/"), kind == "application/graphql", kind == "application/yaml":
		return inText
	}
	return nil
}

// compression returns the codings of a Content-Encoding that change the bytes.
func compression(encoding string) string {
	var codings []string
	for c := range strings.SplitSeq(strings.ToLower(encoding), ",") {
		if c = strings.TrimSpace(c); c != "" && !contentCodings[c].plain {
			codings = append(codings, c)
		}
	}
	return strings.Join(codings, ",")
}

// awsChunked is the name of a Content-Encoding that frames the body in chunks.
const awsChunked = "aws-chunked"

func looksJSON(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[' || b[0] == '"')
}

// compressed keeps a compressed body until its content was searched.
func (r *resolver) compressed(o Options, coding string, length int64, body io.Reader) (io.Reader, int64, error) {
	b, err := r.keep(body, length, MaxCompressedBody)
	if errors.Is(err, memory.ErrTooLong) {
		return nil, 0, &UninspectedError{Reason: fmt.Sprintf("it is compressed and longer than %d bytes", MaxCompressedBody)}
	}
	if err != nil {
		return nil, 0, err
	}
	plain, err := decompress(r.hold, coding, bufio.NewReader(bytes.NewReader(b)), func() error { return nil })
	switch {
	case errors.Is(err, memory.ErrExhausted):
		return nil, 0, &BusyError{}
	case err != nil:
		return nil, 0, &UninspectedError{Reason: err.Error()}
	}
	defer plain.Close()
	content := io.LimitReader(plain, MaxDecompressed+1)
	var search io.Reader = &issuedReader{src: content, r: r}
	if o.BodyRewrite {
		search = &scanner{src: content, refuse: func() error { return r.refuse("body", "a compressed body is not rewritten") }}
	}
	n, err := io.Copy(io.Discard, search)
	var refusal Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, 0, err
	case errors.Is(err, memory.ErrExhausted):
		return nil, 0, &BusyError{}
	case err != nil:
		return nil, 0, &UninspectedError{Reason: "its " + coding + " is broken"}
	case n > MaxDecompressed:
		return nil, 0, &UninspectedError{Reason: fmt.Sprintf("it decompresses to more than %d bytes", MaxDecompressed)}
	case length >= 0 && int64(len(b)) != length:
		return nil, 0, fmt.Errorf("read the request's body: %w", io.ErrUnexpectedEOF)
	}
	return bytes.NewReader(b), int64(len(b)), nil
}

// keep reads a body of at most limit bytes, which stays in memory until the request has
// ended. The error is [memory.ErrTooLong], a BusyError, or that of body.
func (r *resolver) keep(body io.Reader, length int64, limit int) ([]byte, error) {
	b, err := memory.ReadAll(context.Background(), r.hold, body, length, limit)
	switch {
	case errors.Is(err, memory.ErrExhausted):
		return nil, &BusyError{}
	case errors.Is(err, memory.ErrTooLong):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("read the request's body: %w", err)
	}
	return b, nil
}

// decompress returns a reader of the content of r, which has one content coding; see
// contentCodings. hold has the decoder's memory until the reader is closed. The decoder
// calls skipped when it has read bytes that expand to nothing.
func decompress(hold *memory.Hold, coding string, r *bufio.Reader, skipped func() error) (io.ReadCloser, error) {
	c := contentCodings[coding]
	if c.open == nil {
		return nil, fmt.Errorf("content coding %.40q is not known here", coding)
	}
	z := &heldReader{hold: hold}
	if err := z.need(c.least); err != nil {
		return nil, err
	}
	var err error
	if z.ReadCloser, err = c.open(r, z.need, skipped); err != nil {
		hold.Shrink(z.cost)
		return nil, fmt.Errorf("its %s is broken", strings.TrimPrefix(coding, "x-"))
	}
	return z, nil
}

// heldReader is a decoder that takes cost bytes of hold.
type heldReader struct {
	io.ReadCloser
	hold *memory.Hold
	cost int64
}

// Read fails with [memory.ErrExhausted] once the connection was cut for its memory.
func (h *heldReader) Read(p []byte) (int, error) {
	if h.hold.Ended() {
		return 0, memory.ErrExhausted
	}
	return h.ReadCloser.Read(p)
}

// WriteTo writes in the same steps as the decoder: the search of answers needs each
// write as soon as its bytes have arrived. It fails like Read.
func (h *heldReader) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(&heldWriter{w, h.hold}, h.ReadCloser)
}

// heldWriter writes to w until the account of hold has ended.
type heldWriter struct {
	w    io.Writer
	hold *memory.Hold
}

func (h *heldWriter) Write(p []byte) (int, error) {
	if h.hold.Ended() {
		return 0, memory.ErrExhausted
	}
	return h.w.Write(p)
}

func (h *heldReader) Close() error {
	h.hold.Shrink(h.cost)
	h.cost = 0
	return h.ReadCloser.Close()
}

// need takes memory until cost bytes are held.
func (h *heldReader) need(cost int64) error {
	if cost <= h.cost {
		return nil
	}
	if err := h.hold.Grow(context.Background(), cost-h.cost); err != nil {
		return err
	}
	h.cost = cost
	return nil
}

// contentCoding is how a body with a name in its Content-Encoding is read. The zero value is
// that of a name that is not known: the body may be anything.
type contentCoding struct {
	// open returns the decoder. It calls need with the memory that the decoder needs, in
	// bytes, each time that this may have grown. A nil open is a coding of IANA's registry
	// that is not decoded here, unless plain is true.
	open func(r *bufio.Reader, need func(cost int64) error, skipped func() error) (io.ReadCloser, error)
	// least is the memory that the decoder needs before it reads, in bytes.
	least int64
	// plain is true if the name leaves the bytes as they are, so that a search finds a
	// placeholder. Clients send such names although most are no content codings.
	plain bool
	// registered is true for the codings of IANA's registry that change the bytes.
	registered bool
}

// contentCodings are the codings by their names in lower case.
var contentCodings = map[string]contentCoding{
	"gzip":    {open: openGzip, least: inflateCost, registered: true},
	"x-gzip":  {open: openGzip, least: inflateCost, registered: true},
	"deflate": {open: openDeflate, least: inflateCost, registered: true},
	"zstd":    {open: openZstd, least: zstdLeast, registered: true}, // each frame takes its window

	"aes128gcm": {registered: true}, "br": {registered: true}, "compress": {registered: true}, "x-compress": {registered: true},
	"dcb": {registered: true}, "dcz": {registered: true}, "exi": {registered: true}, "pack200-gzip": {registered: true},

	"identity": {plain: true}, awsChunked: {plain: true}, "none": {plain: true}, "binary": {plain: true}, "7bit": {plain: true}, "8bit": {plain: true},
	"utf-8": {plain: true}, "utf8": {plain: true}, "us-ascii": {plain: true}, "iso-8859-1": {plain: true},
}

func openGzip(r *bufio.Reader, _ func(cost int64) error, skipped func() error) (io.ReadCloser, error) {
	z, err := newGzipMembers(r, skipped)
	if err != nil {
		return nil, err
	}
	return z, nil
}

func openDeflate(r *bufio.Reader, _ func(cost int64) error, _ func() error) (io.ReadCloser, error) {
	if head, _ := r.Peek(zlibHeader); !isZlib(head) {
		return flate.NewReader(r), nil // some servers leave the header out
	}
	return zlib.NewReader(r)
}

func openZstd(r *bufio.Reader, need func(cost int64) error, skipped func() error) (io.ReadCloser, error) {
	z, err := zstd.NewReader(&zstdFrames{r: r, need: need, skipped: skipped}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// zlibHeader is the length of the header before deflate, in bytes (RFC 1950, 2.2).
const zlibHeader = 2

// isZlib reports whether b begins with the header before deflate.
func isZlib(b []byte) bool {
	return len(b) >= zlibHeader && b[0]&0x0f == 8 && b[0]>>4 <= 7 && b[1]&0x20 == 0 && (uint(b[0])<<8|uint(b[1]))%31 == 0
}
