// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// TestAnswers (issue 11, point 12): what clients accept is read, from a spelling that
// net/http reads, and the body is what follows the head.
func TestAnswers(t *testing.T) {
	const ok, end = "HTTP/1.1 200 OK\r\n", "\r\nanswer"
	for _, tc := range []struct {
		in, clean string // clean is "" if nothing is changed
		err       error
	}{
		{ok + "Content-Length: 6\r\n" + end, "", nil},
		{"HTTP/1.1 200 OK\nContent-Length: 6\n\nanswer", "", nil},
		{ok + "X: caf\xe9\r\n b\r\nContent-Length: 6\r\n" + end, "", nil},
		{ok + "X: a\x01b\x7f\rc\r\nContent-Length: 6\r\n" + end, ok + "X: a b  c\r\nContent-Length: 6\r\n\r\n", nil},
		{ok + "content-length: 6, 6\r\n" + end, ok + "content-length: 6   \r\n\r\n", nil},
		{ok + "Transfer-Encoding: Identity\r\nContent-Length: 6\r\n" + end, ok + "Content-Length: 6\r\n\r\n", nil},
		{ok + "X: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 6\r\n" + end, ok + "X: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 6\r\n\r\n", nil},
		{ok + strings.Repeat("X: y\x02\r\n", 600) + "Content-Length: 6\r\n" + end, ok + strings.Repeat("X: y \r\n", 600) + "Content-Length: 6\r\n\r\n", nil},
		{ok + "Content-Length: 6, 7\r\n" + end, "", ErrAnswer},
		{ok + "Content-Length: 6,\r\n" + end, "", ErrAnswer},
		{ok + "Content-Length: ,6\r\n" + end, "", ErrAnswer},
		{ok + "X: a\x00b\r\nContent-Length: 6\r\n" + end, "", ErrAnswer},
		{ok + "Transfer-Encoding: identity\r\n , chunked\r\n" + end, "", ErrAnswer},
		{"", "", io.EOF},
		{ok + "X: y", "", io.ErrUnexpectedEOF},
		{ok + strings.Repeat("X: y\x02\r\n", 600), "", io.ErrUnexpectedEOF},
	} {
		br := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(tc.in)), 4096)
		clean, err := CleanAnswer(br)
		if !errors.Is(err, tc.err) || string(clean) != tc.clean {
			t.Errorf("CleanAnswer(%.80q) = %.80q, %v; want %.80q, %v", tc.in, clean, err, tc.clean, tc.err)
		}
		if err != nil {
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(clean), br)), nil)
		if err != nil || resp.ContentLength != 6 {
			t.Errorf("net/http reads %.80q as %v, %v", tc.in, resp, err)
			continue
		}
		if body, _ := io.ReadAll(resp.Body); string(body) != "answer" {
			t.Errorf("%.80q: body %q", tc.in, body)
		}
	}
}

func TestCleanAnswerDoesNotAllocate(t *testing.T) {
	br := bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n"))
	if n := testing.AllocsPerRun(100, func() { _, _ = CleanAnswer(br) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCleanAnswer: a cleaned head has nothing more to clean, and an answer that net/http
// reads as it is keeps its meaning.
func FuzzCleanAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", "HTTP/1.1 200\nX: \x01\n\n", "HTTP/1.0 204 No\r\nTransfer-Encoding: identity\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nTransfer-Encoding:\tIDENTITY\r\n\r\n",
	} {
		f.Add(s)
	}
	read := func(r io.Reader) (*http.Response, error) { return http.ReadResponse(bufio.NewReader(r), nil) }
	f.Fuzz(func(t *testing.T, in string) {
		br := bufio.NewReaderSize(strings.NewReader(in), 64)
		clean, err := CleanAnswer(br)
		before, beforeErr := read(strings.NewReader(in))
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(br)
		if clean == nil && string(rest) != in {
			t.Fatalf("%q: %q is left", in, rest)
		}
		if again, err := CleanAnswer(bufio.NewReaderSize(bytes.NewReader(clean), len(clean)+64)); clean != nil && (err != nil || again != nil) {
			t.Fatalf("%q → %q → %q, %v", in, clean, again, err)
		}
		after, afterErr := read(io.MultiReader(bytes.NewReader(clean), bytes.NewReader(rest)))
		if beforeErr == nil && !strings.ContainsAny(in, "\x00") {
			if afterErr != nil || after.StatusCode != before.StatusCode || after.ContentLength != before.ContentLength {
				t.Fatalf("%q → %q: %+v, %v; want %+v", in, clean, after, afterErr, before)
			}
		}
	})
}
