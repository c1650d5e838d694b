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
		"GET / HTTP/1.1\r\n": HTTP1, "P / HTTP/1.0\n": HTTP1, "VERSION-CONTROL /a HTTP/1.1\r\n": HTTP1, long + " / HTTP/1.1\n": HTTP1,
		preface[:14] + "\n": HTTP1, "PRI * HTTP/1\n": HTTP1, preface: HTTP2, "\r\nGET / HTTP/1.1\r\n": HTTP1, "\n\nGET /\n": HTTP1, "\r\nPRI * HTTP/2.0\r\n": HTTP1,
		"SSH-2.": Other, " ": Other, "\r\n\x00": Other, "\r\nGET\t": Other, "\r\nNICK me\r\n": Other, "\n\n\n\n\n\n\n\n\n": Other, "g": Other, "G_": Other, long + "A": Other, "\x00": Other, "\x80": Other, "\x15": Other, "GET\t": Other,
	} {
		br := slowly(t, in)
		if f, err := Peek(br); err != nil || f.Kind != want || f.Hello != nil {
			t.Errorf("Peek(%q) = %v, %v; want %v", in, f.Kind, err, want)
		}
		if b, _ := br.Peek(br.Buffered()); string(b) != in {
			t.Errorf("Peek(%q) leaves %q", in, b)
		}
	}
}

// TestBypass_B27_TextThatIsNoRequest (issue 11, point 11): a line that no HTTP server
// takes for a request is another protocol's, and one that some server may is HTTP.
func TestBypass_B27_TextThatIsNoRequest(t *testing.T) {
	for _, line := range []string{
		"NICK me\r\n", "NICK me\n", "USER me 0 * :me\r\n", "OPTIONS rtsp://a.test/ RTSP/1.0\r\n", "CONNECT {\"verbose\":false}\r\n", "SET a 1\r\n", "GET a\r\n",
		"INVITE sip:a@b.test SIP/2.0\r\n", "RFB 003.008\n", "EHLO a.test\r\n", "A \r\n", "PRI * \r\n", "REQMOD icap://a.test/ ICAP/1.0\r\n",
	} {
		for _, after := range []string{"", "GET / HTTP/1.1\r\n\r\n"} {
			if f, err := Peek(ended(line + after)); err != nil || f.Kind != Other {
				t.Errorf("Peek(%q) = %v, %v; want other", line+after, f.Kind, err)
			}
		}
		if f, err := Peek(slowly(t, line)); err != nil || f.Kind != Other {
			t.Errorf("Peek(%q) = %v, %v; want other", line, f.Kind, err)
		}
	}
	for _, line := range []string{
		"GET /\r\n", "GET /a b\r\n", "GET  /\r\n", "GET \t/\r\n", "GET http://a.test\r\n", "GET HTTPS://a.test\r\n", "GET a HTTP/1.1\r\n", "GET a http/1.1\r\n",
		"GET a HTTP/2\r\n", "GET a HTTP/1.1 \r\n", "GET a\tHTTP/1.1\r\n", "X a HTTP/0.9\n", "NICK me\rGET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n",
		"CONNECT a.test:443 HTTP/1.1\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n", "GET rtsp://a.test/HTTP/ RTSP/1.0\r\n",
		"NICK me", "A ", "A " + strings.Repeat("a", MaxHello) + "\r\n", // no line
	} {
		if f, err := Peek(ended(line)); err != nil || f.Kind != HTTP1 {
			t.Errorf("Peek(%.80q) = %v, %v; want http1", line, f.Kind, err)
		}
	}
}

func TestPeekEnds(t *testing.T) {
	for in, want := range map[string]error{
		"": io.EOF, "GE": io.ErrUnexpectedEOF, preface[:20]: io.ErrUnexpectedEOF, "\x16": io.ErrUnexpectedEOF, "\r\n": io.ErrUnexpectedEOF, "\x16\x03\x01\x00\x05\x01": io.ErrUnexpectedEOF,
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
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bufio.NewReaderSize(strings.NewReader(string(in)), MaxHello)
		a, errA := Peek(whole)
		b, errB := Peek(bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(string(in))), MaxHello))
		if (errA == nil) != (errB == nil) || a.Kind != b.Kind {
			t.Fatalf("at once: %v, %v; byte by byte: %v, %v", a.Kind, errA, b.Kind, errB)
		}
		if rest, _ := io.ReadAll(whole); string(rest) != string(in) {
			t.Fatal("bytes were consumed")
		}
		if (a.Kind == TLS) != (a.Hello != nil) || (a.Kind == Unknown) != (errA != nil) {
			t.Fatalf("%+v, %v", a, errA)
		}
		if a.Hello != nil && a.Hello.ServerName != "" && !all([]byte(a.Hello.ServerName), host) {
			t.Fatalf("name %q", a.Hello.ServerName)
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
