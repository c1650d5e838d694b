// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// A body in parts is read, and so sent, in one piece.
func TestPayloadIsReadOverItsParts(t *testing.T) {
	parts := [][]byte{[]byte(`{"model":`), nil, []byte(`"m"`), []byte(`,"stream":true}`)}
	want := bytes.Join(parts, nil)
	p := &payload{}
	b := make([]byte, 2*len(want))
	n, err := p.open(parts).Read(b)
	if !bytes.Equal(b[:n], want) || !errors.Is(err, io.EOF) {
		t.Errorf("one read: %q, %v; want %q and its end", b[:n], err, want)
	}
	if err := iotest.TestReader(p.open(parts), want); err != nil {
		t.Error(err)
	}
}

// HTTP/2 closes the body only when the answer has ended: what was sent is let go
// before.
func TestPayloadIsLetGoOnceItIsSent(t *testing.T) {
	p := &payload{doc: &document{}}
	body := p.open([][]byte{[]byte("sent")})
	p.finish()
	if p.document() == nil {
		t.Fatal("let go before it was sent")
	}
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	if p.document() != nil {
		t.Error("held although all of it is sent and nobody sends it again")
	}
	if err := body.Close(); err != nil || p.readers != 0 {
		t.Errorf("%d readers after the last has closed, %v", p.readers, err)
	}
}
