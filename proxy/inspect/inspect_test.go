// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// script gives its bytes and then fails the test: a read after them would have
// waited for the client.
type script struct {
	t    testing.TB
	data io.Reader
}

func (s *script) Read(p []byte) (int, error) {
	n, err := s.data.Read(p)
	if err == io.EOF {
		s.t.Error("waits for more than it needs")
	}
	return n, err
}

// slowly gives data byte by byte and does not end.
func slowly(t testing.TB, data string) *bufio.Reader {
	return bufio.NewReaderSize(&script{t, iotest.OneByteReader(strings.NewReader(data))}, MaxHello)
}

func ended(data string) *bufio.Reader {
	return bufio.NewReaderSize(strings.NewReader(data), MaxHello)
}

func TestPeekKinds(t *testing.T) {
	long := strings.Repeat("A", MaxMethod)
	for in, want := range map[string]Kind{
		"GET /": HTTP1, "P /": HTTP1, "VERSION-CONTROL /": HTTP1, long + " /": HTTP1, "GET http:": HTTP1, "GET HTTPS:": HTTP1,
		preface[:14] + "\n": HTTP1, "PRI * HTTP/1": HTTP1, preface: HTTP2, "\r\nGET /": HTTP1, "\r\nPRI * HTTP/": HTTP1,
		"\n": Other, "S": Unknown, "SSH-2.": Other, " ": Other, "\r\n\x00": Other, "\r\nGET\t": Other, "\r\nNICK me\r": Other, "g": Other, "G_": Other, long + "A": Other,
		"\x00": Other, "\x80": Other, "\x15": Other, "GET\t": Other, "GET  ": Other, "*": Other, "{": Other, "<": Other, "PING\r": Other, "PING\n": Other, "PING\x00": Other,
	} {
		br := slowly(t, in)
		if want == Unknown {
			if _, err := Peek(ended(in)); err != nil {
				t.Errorf("Peek(%q) = %v at its end", in, err)
			}
			continue
		}
		if f, err := Peek(br); err != nil || f.Kind != want || f.Hello != nil {
			t.Errorf("Peek(%q) = %v, %v; want %v", in, f.Kind, err, want)
		}
		if b, _ := br.Peek(br.Buffered()); string(b) != in {
			t.Errorf("Peek(%q) leaves %q", in, b)
		}
	}
}

func TestPeekEnds(t *testing.T) {
	for in, want := range map[string]error{
		"": io.EOF, "\x16": io.ErrUnexpectedEOF, "\x16\x03\x01\x00\x05\x01": io.ErrUnexpectedEOF,
	} {
		if f, err := Peek(ended(in)); !errors.Is(err, want) || f.Kind != Unknown {
			t.Errorf("Peek(%q) = %v, %v; want %v", in, f.Kind, err, want)
		}
	}
	broken := errors.New("reset")
	if _, err := Peek(bufio.NewReaderSize(iotest.ErrReader(broken), MaxHello)); !errors.Is(err, broken) {
		t.Errorf("a read error became %v", err)
	}
	if _, err := Peek(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\n"))); err == nil {
		t.Error("a buffer too small for a ClientHello is taken")
	}
}

func FuzzPeek(f *testing.F) {
	f.Add([]byte(preface))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(records(helloMsg(sni("a.example"), alpn("h2")), 7)))
	for _, p := range openings {
		f.Add([]byte(p.first[:min(len(p.first), 200)])) // long ones take the fuzzer a minute each
	}
	for _, line := range requests {
		f.Add([]byte(line[:min(len(line), 200)]))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bufio.NewReaderSize(strings.NewReader(string(in)), MaxHello)
		a, errA := Peek(whole)
		b, errB := Peek(bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(string(in))), MaxHello))
		if (errA == nil) != (errB == nil) || settled(a, in) != settled(b, in) {
			t.Fatalf("at once: %+v, %v; byte by byte: %+v, %v", a, errA, b, errB)
		}
		if rest, _ := io.ReadAll(whole); string(rest) != string(in) {
			t.Fatal("bytes were consumed")
		}
		if (a.Kind == TLS) != (a.Hello != nil) || (a.Kind == Unknown) != (errA != nil) || a.Open && a.Kind != Other {
			t.Fatalf("%+v, %v", a, errA)
		}
		if a.Hello != nil && a.Hello.ServerName != "" && !all([]byte(a.Hello.ServerName), host) {
			t.Fatalf("name %q", a.Hello.ServerName)
		}
		if k := settled(a, in); errA == nil && someServerReads(in) && k != HTTP1 && k != HTTP2 {
			t.Fatalf("%q is %v, and a server reads it as a request", in, k)
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	for name, in := range map[string]string{"tls": records(helloMsg(sni("api.example.com"), alpn("h2", "http/1.1"), pad(1200)), 0), "http": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		b.Run(name, func(b *testing.B) {
			src := strings.NewReader(in)
			br := bufio.NewReaderSize(src, MaxHello)
			b.ReportAllocs()
			for b.Loop() {
				src.Reset(in)
				br.Reset(src)
				if _, err := Peek(br); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
