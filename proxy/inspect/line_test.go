// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
)

// openings are the first bytes of clients that do not speak HTTP, up to where they wait for
// the server.
var openings = []struct{ name, first string }{
	{"Redis, inline", "PING\r\n"},
	{"Redis, inline with a path", "get /a\r\n"},
	{"Redis, RESP", "*2\r\n$3\r\nGET\r\n$1\r\n/\r\n"},
	{"memcached, get", "get /index.html?a=b\r\n"},
	{"memcached, set", "set http/a 0 0 5\r\nhello\r\n"},
	{"memcached, several keys", "get a /b http://c/\r\n"},
	{"memcached, meta", "mg a/b v\r\n"},
	{"memcached, stats", "stats\r\n"},
	{"memcached, binary", "\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a"},
	{"PostgreSQL, SSLRequest", "\x00\x00\x00\x08\x04\xd2\x16\x2f"},
	{"PostgreSQL, start", "\x00\x00\x00\x2f\x00\x03\x00\x00user\x00a\x00application_name\x00x HTTP/1.1\x00\x00"},
	{"MySQL", "\x20\x00\x00\x01\x05\xae\xff\x19\x00\x00\x00\x01\x21"}, // after the server's greeting
	{"SQL Server", "\x12\x01\x00\x2f\x00\x00\x01\x00\x00\x00\x1a\x00\x06"},
	{"Oracle", "\x00\xf4\x00\x00\x01\x00\x00\x00\x01\x36"},
	{"MongoDB", "\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00"},
	{"MongoDB with a length of blanks", "\x20\x20\x00\x00\x01\x00\x00\x00"},
	{"Cassandra", "\x04\x00\x00\x00\x05\x00\x00\x00\x00"},
	{"Kafka", "\x00\x00\x00\x1c\x00\x12\x00\x03\x00\x00\x00\x01\x00\x04test"},
	{"ZooKeeper", "\x00\x00\x00\x2d\x00\x00\x00\x00"},
	{"AMQP", "AMQP\x00\x00\x09\x01"},
	{"MQTT", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"},
	{"MQTT with a length that is a blank", "\x10 \x00\x04MQTT\x04\x02\x00\x3c\x00\x14aaaaaaaaaaaaaaaaaaaa"},
	{"NATS", "CONNECT {\"verbose\":false,\"lang\":\"go\"}\r\nPING\r\n"},
	{"STOMP", "CONNECT\naccept-version:1.2\nhost:/\n\n\x00"},
	{"STOMP 1.2", "STOMP\naccept-version:1.2\nhost:a.test\n\n\x00"},
	{"beanstalkd", "use /a\r\nstats\r\n"},
	{"gearman, text", "status\r\n"},
	{"gearman, binary", "\x00REQ\x00\x00\x00\x10\x00\x00\x00\x04/ a\n"},
	{"NSQ", "  V2"},
	{"NSQ, with a command", "  V2IDENTIFY\n\x00\x00\x00\x02{}"},
	{"SSH", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"},
	{"IRC", "NICK me\r\nUSER me 0 * :me\r\n"},
	{"IRC, capabilities first", "CAP LS 302\r\n"},
	{"FTP", "USER anonymous\r\n"}, // after the server's greeting, as the next four
	{"SMTP", "EHLO a.test\r\n"},
	{"POP3", "QUIT\r\n"},
	{"IMAP", "a1 LOGIN a b\r\n"},
	{"rsync", "@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n"},
	{"VNC", "RFB 003.008\n"},
	{"Git", "0032git-upload-pack /project.git\x00host=a.test\x00"},
	{"Git, version 2", "0042git-upload-pack /project.git\x00host=a.test\x00\x00version=2\x00"},
	{"CVS", "BEGIN AUTH REQUEST\n/cvs\nanonymous\nA\nEND AUTH REQUEST\n"},
	{"XMPP", "<?xml version='1.0'?><stream:stream to='a.test' version='1.0' xmlns='jabber:client'>"},
	{"JSON-RPC", `{"jsonrpc": "2.0", "id": 1, "method": "mining.subscribe", "params": ["GET / HTTP/1.1"]}`},
	{"JSON", `{ "request": "GET /a HTTP/1.1" }` + "\n"},
	{"RTSP", "OPTIONS rtsp://a.test/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"},
	{"SIP", "REGISTER sip:a.test SIP/2.0\r\n"},
	{"ICAP", "REQMOD icap://a.test/ ICAP/1.0\r\n"},
	{"LDAP", "0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\x00\x80\x00"},
	{"LDAP with a length that is a blank", "0 \x02\x01\x01`\x1b\x02\x01\x03\x04\x0c"},
	{"SOCKS5", "\x05\x01\x00"},
	{"SOCKS5, with what it carries", "\x05\x01\x00\x05\x01\x00\x03\x06a.test\x00\x50GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"},
	{"SOCKS4", "\x04\x01\x00\x50\x00\x00\x00\x01\x00a.test\x00GET / HTTP/1.1\r\n"},
	{"Bolt", "``\xb0\x17\x00\x00\x01\x04"},
	{"BitTorrent", "\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05"},
	{"Bitcoin", "\xf9\xbe\xb4\xd9version\x00\x00\x00\x00\x00"},
	{"Thrift", "\x80\x01\x00\x01\x00\x00\x00\x04ping"},
	{"DNS", "\x00\x1c\x12\x34\x01\x00\x00\x01"},
	{"SMB", "\x00\x00\x00\xd4\xfeSMB"},
	{"RDP", "\x03\x00\x00\x13\x0e\xe0\x00\x00"},
	{"Telnet", "\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18"},
	{"libp2p", "\x13/multistream/1.0.0\n"},
	{"RTMP", "\x03\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"WHOIS", "a.test\r\n"},
	{"finger", "/W root\r\n"},
	{"Gopher", "/path\tquery\r\n"},
	{"Graphite", "servers.http/1.requests 4 1700000000\n"},
	{"InfluxDB", "http,path=/a value=1 1700000000\n"},
	{"syslog", "<34>1 2003-10-11T22:14:15Z a.test nginx - - - 192.0.2.1 \"GET / HTTP/1.1\" 200\n"},
	{"access log", "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 12 \"-\" \"curl\"\n"},
	{"access log, IPv6", "2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 12\n"},
	{"a word without an end", "hello"},
	{"a command without an end", "STATS a"},
	{"a console", "\r\n"},
	{"a console, LF", "\n\n\n\n\n"},
	{"data without lines", strings.Repeat("a", 3*MaxHello)},
	{"base64 without lines", strings.Repeat("QUJD/+", MaxHello)},
}

// TestProtocols: no protocol but HTTP waits for anything but its own end or FirstLineTimeout
// of package proxy, and none is HTTP.
func TestProtocols(t *testing.T) {
	for _, p := range openings {
		t.Run(p.name, func(t *testing.T) {
			paused := bufio.NewReaderSize(io.MultiReader(strings.NewReader(p.first), pause{}), MaxHello)
			f, err := Peek(paused)
			if err == errPause && !Begins(paused) {
				f, err = First{Kind: Other, Open: true}, nil
			}
			if err != nil || f.Kind != Other {
				t.Fatalf("Peek = %v, %v; want other", f.Kind, err)
			}
			if k := settled(f, []byte(p.first)); k != Other {
				t.Errorf("the line is read as %v", k)
			}
			f, err = Peek(ended(p.first))
			if err != nil || settled(f, []byte(p.first)) != Other {
				t.Errorf("at the end Peek = %v, %v; want other", f.Kind, err)
			}
		})
	}
}

// TestBegins: requests get their time, also if they come slowly.
func TestBegins(t *testing.T) {
	for _, in := range []string{"G", "GET", "GET ", "GET h", "P", "DELETE ", "CONNECT a", "OPTIONS *", "\r\nPUT ", preface[:3], preface[:20], "\x16", "\x16\x03"} {
		paused := bufio.NewReaderSize(io.MultiReader(strings.NewReader(in), pause{}), MaxHello)
		if _, err := Peek(paused); err != errPause || !Begins(paused) {
			t.Errorf("%q: %v, begins: %v", in, err, Begins(paused))
		}
	}
	for _, in := range []string{"PING", "GETS", "GETS a", "GE ", "get", "STATS", "\r\n", "\n", "QUIT"} {
		paused := bufio.NewReaderSize(io.MultiReader(strings.NewReader(in), pause{}), MaxHello)
		if _, _ = Peek(paused); Begins(paused) {
			t.Errorf("%q begins a request", in)
		}
	}
}

type pauseError struct{}

func (pauseError) Error() string { return "the client pauses" }

var errPause error = pauseError{}

// pause is a client that sends nothing.
type pause struct{}

func (pause) Read([]byte) (int, error) { return 0, errPause }

// settled is the kind of a connection of which in is all. An open line that becomes a request
// is HTTP1, because both are refused.
func settled(f First, in []byte) Kind {
	if !f.Open {
		return f.Kind
	}
	var line Line
	if line.Read(in); line.End() == Request {
		return HTTP1
	}
	return Other
}

// requests are lines that some server reads as requests, and what else is not carried.
var requests = []string{
	"GET /\r\n", "GET /a b\r\n", "GET  /\r\n", "GET \t/\r\n", "GET http://a.test\r\n", "GET HTTPS://a.test\r\n", "GET a HTTP/1.1\r\n", "GET a http/1.1\r\n",
	"GET a HTTP/2\r\n", "GET a HTTP/1.1 \r\n", "GET a\tHTTP/1.1\r\n", "X a HTTP/0.9\n", "NICK me\rGET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n",
	"CONNECT a.test:443 HTTP/1.1\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n", "PROXY UNKNOWN\r\n", "GET rtsp://a.test/HTTP/ RTSP/1.0\r\n", "NICK hhttp/\r\n",
	" GET / HTTP/1.1\n", "\fGET / HTTP/1.1\n", "\x1cGET / HTTP/1.1\n", "\xa0GET a HTTP/1.1\n", "\x01GET / HTTP/1.1\n", "\xef\xbb\xbfGET / HTTP/1.1\n", "\xc3\xa9 a HTTP/1.1\n",
	"GET\t/s\tHTTP/1.1\n", "GET\v/s HTTP/1.1\n", "GET\x85a\xa0HTTP/1.1\n", "GET\t/s\n", "get a HTTP/1.1\n", "G_T a HTTP/1.1\n", "(G) a HTTP/1.1\n", "GET /\x00\x01\x01 HTTP/1.1\n",
	"GET\r/ HTTP/1.1\n", strings.Repeat("M", 2*MaxMethod) + " a HTTP/1.1\n", strings.Repeat("\r\n", 5) + "GET / HTTP/1.1\n", strings.Repeat("\r\n", 30) + "GET / HTTP/1.1\n",
	strings.Repeat("\n", maxBlank-1) + "GET a HTTP/1.1\n", strings.Repeat("\n", maxBlank), strings.Repeat(" ", maxHead), strings.Repeat("M", maxHead) + " / HTTP/1.1\n",
	strings.Repeat("m", 2*MaxHello) + " a HTTP/1.1\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET / HTTP/1.1\r\n\r\n", // the second is PROXY, version 2
	"{ / HTTP/1.1\r\n", "< /s HTTP/1.1\r\n", "get /s \r\n", "get /s\t\r\n", "get /s \n", "get /s x\r\n", "Get\thttp://a.test/\tx\r\n", "get /s\r x\r\n", "get /s\r\r\n", // mini_httpd, the JDK
	"set /s 0 0 5\r\n", "mg /s v\r\n", "get /s /t\r\n", // also memcached (docs/compat.md)
	"_ /s\r\n", "\xff /s\r\n", "@ http://a.test/\n", // waitress
	"get a  b HTTP/1.1\r\n", "get a b c d HTTP/1.1 \r\n", "x a HTTP/1.1garbage\r\n", "x  HTTP/1.1\r\n", "_\tB c HTTP/1.1 x\r\n", "a\tb c HTTP/1.1\"\r\n", // Squid, Apache 2.2
	"get a\tb\tc\td HTTP/1.1\r\n", "a\tb /s x\r\n", "_\t_ /s\r\n", " /s x\r\n", "\r\n\t /s x\r\n", "\x1c http://a.test\r\n", "\x1c a HTTP/1.1\r\n",
}

// TestBypass_B27_LinesThatSomeServerReads: such a line is never carried as a whole, however it
// is split. Peek sees its first part, and Line all of it.
func TestBypass_B27_LinesThatSomeServerReads(t *testing.T) {
	for _, line := range requests {
		if f, err := Peek(ended(line)); err != nil || settled(f, []byte(line)) != HTTP1 {
			t.Errorf("Peek(%.80q) = %v, %v; want http1", line, f.Kind, err)
		}
		step := max(1, len(line)/200)
		for i := 1; i < len(line); i += step {
			var l Line
			l.Read([]byte(line[:i]))
			l.Read([]byte(line[i:]))
			if l.End() != Request {
				t.Errorf("%.80q, split at %d, is no request", line, i)
			}
		}
	}
}

// TestBypass_B27_TextThatIsNoRequest (issue 11, point 11): a line that no HTTP server
// takes for a request is another protocol's, whatever follows.
func TestBypass_B27_TextThatIsNoRequest(t *testing.T) {
	for _, line := range []string{
		"NICK me\r\n", "NICK me\n", "USER me 0 * :me\r\n", "SET a 1\r\n", "GET a\r\n", "A \r\n", "PRI * \r\n", "get /s\r\n", "get /s\n", "a HTTP/1.1\r\n", "a b http/x\r\n",
		"a b c http/1.1 d\r\n", "a b c http/1.1x\r\n", "< b c http/1.1\r\n", "GET \x00/\r\n", "\r\n\x00\r\nQUIT\n",
	} {
		for _, after := range []string{"", "GET / HTTP/1.1\r\n\r\n"} {
			if f, err := Peek(ended(line + after)); err != nil || settled(f, []byte(line+after)) != Other {
				t.Errorf("Peek(%q) = %v, %v; want other", line+after, f.Kind, err)
			}
		}
		if f, err := Peek(slowly(t, line)); err != nil || settled(f, []byte(line)) != Other {
			t.Errorf("Peek(%q) = %v, %v; want other", line, f.Kind, err)
		}
	}
}

// someServerReads reports whether one of some servers reads in as a request, in which a host
// can be named. It leaves out the lines that count as binary.
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
		if classes[x]&control != 0 {
			controls++
		}
	}
	if !ended || controls > maxControls || len(line) > 0 && line[0] == recordHandshake {
		return false
	}
	// Python's http.server.
	words := strings.FieldsFunc(string(latin1), func(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f })
	if len(words) == 3 && version(words[2]) {
		return true
	}
	text := strings.TrimSuffix(string(line), "\r")
	// The JDK's server.
	if f := strings.SplitN(text, " ", 3); len(f) == 3 && strings.HasPrefix(f[1], "/") {
		return true
	}
	// waitress.
	if f := strings.Split(strings.TrimLeft(text, " \t\v\f\r"), " "); len(f) == 2 && f[0] != "" && !strings.ContainsAny(f[0], "abcdefghijklmnopqrstuvwxyz") && strings.HasPrefix(f[1], "/") {
		return true
	}
	// mini_httpd.
	method, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	path, _, third := strings.Cut(strings.TrimLeft(rest, " "), " ")
	return third && strings.EqualFold(method, "GET") && strings.HasPrefix(path, "/")
}

// version reports whether Python's http.server accepts s as a version.
func version(s string) bool {
	s, ok := strings.CutPrefix(s, "HTTP/")
	major, minor, dot := strings.Cut(s, ".")
	return ok && dot && all([]byte(major+minor), digit) && major != "" && minor != ""
}
