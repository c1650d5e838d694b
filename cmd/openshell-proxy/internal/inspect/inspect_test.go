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
	"unicode"
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
		"SSH-2.0-x\r\n": Other, "\r\n\x00": Other, "\r\n\r\n\x00": HTTP1, "\r\nNICK me\r\n": Other, "g\n": Other, "G_\n": Other, long + "A\n": Other, "\x00": Other,
		"\x80\x00": Other, "*1\r\n": Other, "{": Other, "<": Other, strings.Repeat("\n", maxBlank): HTTP1,
		// The first bytes of SOCKS5, LDAP (lengths 12 and 32), MQTT (32), Bolt, AMQP, memcached.
		"\x05\x01": Other, "0\x0c\x02\x01": Other, "0 \x02\x01": Other, "\x10 \x00": Other, "``\xb0\x17\x00": Other, "AMQP\x00": Other, "\x80\x01\x00": Other,
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
		" GET / HTTP/1.1\n", "\fGET / HTTP/1.1\n", "\x1cGET / HTTP/1.1\n", "\xa0GET a HTTP/1.1\n", "\x01GET / HTTP/1.1\n", "\xef\xbb\xbfGET / HTTP/1.1\n", "\xc3\xa9 a HTTP/1.1\n",
		"GET\t/s\tHTTP/1.1\n", "GET\v/s HTTP/1.1\n", "GET\x85a\xa0HTTP/1.1\n", "GET\t/s\n", "get a HTTP/1.1\n", "G_T a HTTP/1.1\n", "(G) a HTTP/1.1\n", "GET /\x00\x01\x01 HTTP/1.1\n",
		"GET\r/ HTTP/1.1\n", strings.Repeat("M", 2*MaxMethod) + " a HTTP/1.1\n", strings.Repeat("\r\n", 5) + "GET / HTTP/1.1\n", strings.Repeat("\r\n", 50) + "GET / HTTP/1.1\n",
		strings.Repeat("\n", maxBlank-1) + "GET a HTTP/1.1\n", strings.Repeat(" ", MaxHead), strings.Repeat("M", MaxHead) + " / HTTP/1.1\n",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET / HTTP/1.1\r\n\r\n", // PROXY, version 2
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
	for _, s := range []string{" GET / HTTP/1.1\r\n", "GET\v/s HTTP/1.1\n", "\x85\r\n\x01\xe9 a\x1fHTTP/1.1\n", "!#$ http/ HTTP/1.0\n"} {
		f.Add([]byte(s))
	}
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
		if errA == nil && someServerReads(in) && a.Kind != HTTP1 && a.Kind != HTTP2 {
			t.Fatalf("%q is %v, and a server reads it as a request", in, a.Kind)
		}
	})
}

// someServerReads reports whether Go or Python's http.server reads in, without the empty
// lines before it, as a request with a version. Of what Python accepts it leaves out the
// lines that count as binary, XML or JSON.
func someServerReads(in []byte) bool {
	in = bytes.TrimLeft(in, "\r\n")
	if req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(in), strings.NewReader("\r\n\r\n")))); err == nil && bytes.IndexByte(in, '\n') >= 0 {
		return req.ProtoMajor > 0
	}
	line, _, ended := bytes.Cut(in, []byte("\n"))
	latin1 := make([]rune, len(line))
	controls := 0
	for i, x := range line {
		latin1[i] = rune(x)
		if x == 0 {
			return false
		}
		if x < '\t' || '\r' < x && x < 0x1c || x == 0x7f {
			controls++
		}
	}
	words := strings.FieldsFunc(string(latin1), func(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f })
	return ended && controls <= 1 && len(line) < MaxHead-maxBlank && len(words) == 3 && words[0][0] != '<' && words[0][0] != '{' && words[0][0] != recordHandshake &&
		strings.HasPrefix(words[2], "HTTP/")
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
