// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"errors"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"openshell.dev/runtime/internal/secret"
)

// wire is how documents are written and read: the one place in which the JSON of a
// [secret.Secret] is its value. encoding/json cannot be told to reveal one in one place and
// not in all others; this package is its second version, a part of the standard library
// from Go 1.27 on. An unknown member, a name that is there twice and a name in another case
// are errors.
var wire = json.JoinOptions(
	json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, s secret.Secret) error {
		return e.WriteToken(jsontext.String(s.Reveal()))
	})),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, s *secret.Secret) error {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		if token.Kind() != jsontext.KindString {
			return errNotText
		}
		*s = secret.New(token.String())
		return nil
	})),
	json.RejectUnknownMembers(true),
	jsontext.AllowInvalidUTF8(true), // paths need not be UTF-8; other bytes become U+FFFD
	jsonv1.FormatDurationAsNano(true),
)

var errNotText = errors.New("a secret is not a string")

// Encoder writes documents to a descriptor of another process, secrets included.
type Encoder struct{ e *jsontext.Encoder }

// NewEncoder returns an Encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{jsontext.NewEncoder(w)} }

// Encode writes a document.
func (e *Encoder) Encode(document any) error { return json.MarshalEncode(e.e, document, wire) }

// Decoder reads documents, one after the other.
type Decoder struct{ d *jsontext.Decoder }

// NewDecoder returns a Decoder that reads from r, which it may read further than the
// documents that were decoded.
func NewDecoder(r io.Reader) *Decoder { return &Decoder{jsontext.NewDecoder(r)} }

// Decode reads the next document into a pointer. The error is io.EOF if there is none. Any
// other error may quote the document, but no secret in it.
func (d *Decoder) Decode(document any) error { return json.UnmarshalDecode(d.d, document, wire) }

// Encode returns a document as Encoder writes it.
func Encode(document any) ([]byte, error) { return json.Marshal(document, wire) }

// Decode reads the whole of r, which is one document.
func Decode(r io.Reader, document any) error {
	d := NewDecoder(r)
	if err := d.Decode(document); err != nil {
		return err
	}
	if _, err := d.d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}
