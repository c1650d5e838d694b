// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

func vec(size int, parts ...string) string {
	s := strings.Join(parts, "")
	n := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
	return string(n[4-size:]) + s
}

func ext(typ uint16, data string) string {
	return string(binary.BigEndian.AppendUint16(nil, typ)) + vec(2, data)
}

func names(n ...string) string {
	s := ""
	for _, x := range n {
		s += "\x00" + vec(2, x)
	}
	return ext(extServerName, vec(2, s))
}

func sni(n string) string { return names(n) }
func pad(n int) string    { return ext(21, strings.Repeat("\x00", n)) }

func alpn(p ...string) string {
	s := ""
	for _, x := range p {
		s += vec(1, x)
	}
	return ext(extALPN, vec(2, s))
}

const fixedPart = "\x03\x03" + "0123456789abcdef0123456789abcdef" + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"

func message(body string) string { return "\x01" + vec(3, body) }

func helloMsg(exts ...string) string { return message(fixedPart + vec(2, exts...)) }

// records cuts a message into records of n bytes, as long as they may be with 0.
func records(msg string, n int) string {
	if n == 0 {
		n = maxRecord
	}
	var s strings.Builder
	for part := range slices.Chunk([]byte(msg), n) {
		s.WriteString("\x16\x03\x01" + vec(2, string(part)))
	}
	return s.String()
}

func TestBypass_B8_LongAndFragmentedHello(t *testing.T) {
	late := helloMsg(pad(5000), ext(0x0a0a, ""), sni("late.example"), alpn("h2", "http/1.1"))
	biggest := helloMsg(pad(MaxHello-4*recordHeader-handshakeHeader-len(fixedPart)-2-4-len(sni("late.example"))), sni("late.example"))
	for name, in := range map[string]string{
		"one record": records(late, 0), "records of 1": records(late, 1), "records of 3": records(late, 3), "records of 1000": records(late, 1000), "64 KiB": records(biggest, 0),
	} {
		f, err := Peek(slowly(t, in))
		if err != nil || f.Kind != TLS || f.Hello.ServerName != "late.example" {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for name, in := range map[string]string{
		"over 64 KiB": records(helloMsg(pad(MaxHello-70), sni("a.example")), 0), "over 64 KiB with its headers": records(helloMsg(pad(20000), sni("a.example")), 1),
		"says it is long": "\x16\x03\x01" + vec(2, "\x01\xff\xff\xff"),
	} {
		if _, err := Peek(ended(in)); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBypass_B7_NamesInHello(t *testing.T) {
	for name, c := range map[string]struct {
		exts []string
		want *Hello
	}{
		"none":              {nil, &Hello{}},
		"name":              {[]string{sni("Api.Example.com")}, &Hello{ServerName: "Api.Example.com"}},
		"two extensions":    {[]string{sni("good.example"), pad(9), sni("evil.example")}, nil},
		"two names":         {[]string{names("good.example", "evil.example")}, nil},
		"no names":          {[]string{names()}, nil},
		"empty name":        {[]string{sni("")}, nil},
		"other type":        {[]string{ext(extServerName, vec(2, "\x01"+vec(2, "a.example")))}, nil},
		"after the list":    {[]string{ext(extServerName, vec(2, "\x00"+vec(2, "a.example"))+"x")}, nil},
		"cut short":         {[]string{ext(extServerName, vec(2, "\x00\x00\x20a.example"))}, nil},
		"empty extension":   {[]string{ext(extServerName, "")}, nil},
		"NUL":               {[]string{sni("evil.example\x00.good.example")}, nil},
		"space":             {[]string{sni("a example")}, nil},
		"not ASCII":         {[]string{sni("exämple.com")}, nil},
		"IPv4":              {[]string{sni("10.0.0.1")}, nil},
		"IPv6":              {[]string{sni("fd00::1")}, nil},
		"brackets":          {[]string{sni("[::1]")}, nil},
		"port":              {[]string{sni("a.example:443")}, nil},
		"dot at the end":    {[]string{sni("a.example.")}, nil},
		"ECH":               {[]string{sni("outer.example"), ext(extECH, "\x00")}, &Hello{ServerName: "outer.example", ECH: true}},
		"ECH draft":         {[]string{ext(0xfe0a, "")}, &Hello{ECH: true}},
		"ESNI":              {[]string{ext(extESNI, "x")}, &Hello{ECH: true}},
		"two of any type":   {[]string{ext(0x1234, ""), ext(0x1234, "")}, nil},
		"ALPN":              {[]string{alpn("h2", "http/1.1")}, &Hello{ALPN: []string{"h2", "http/1.1"}}},
		"ALPN empty":        {[]string{alpn()}, nil},
		"ALPN empty name":   {[]string{alpn("h2", "")}, nil},
		"ALPN cut short":    {[]string{ext(extALPN, vec(2, "\x09h2"))}, nil},
		"extension cut":     {[]string{"\x00\x15\x00\x09x"}, nil},
		"too many":          {[]string{manyExtensions(maxExtensions + 1)}, nil},
		"as many as may be": {[]string{manyExtensions(maxExtensions)}, &Hello{}},
	} {
		f, err := Peek(slowly(t, records(helloMsg(c.exts...), 0)))
		switch {
		case c.want == nil && !errors.Is(err, ErrHello):
			t.Errorf("%s: %+v, %v", name, f.Hello, err)
		case c.want != nil && (err != nil || f.Hello.ServerName != c.want.ServerName || f.Hello.ECH != c.want.ECH || !slices.Equal(f.Hello.ALPN, c.want.ALPN)):
			t.Errorf("%s: %+v, %v; want %+v", name, f.Hello, err, c.want)
		}
	}
}

func manyExtensions(n int) string {
	s := ""
	for i := range n {
		s += ext(uint16(0x1000+i), "")
	}
	return s
}

func TestMalformedHello(t *testing.T) {
	good := helloMsg(sni("a.example"))
	for name, in := range map[string]string{
		"other version": "\x16\x02" + records(good, 0)[2:], "no length": "\x16\x03\x01\x00\x00", "long record": "\x16\x03\x01" + vec(2, helloMsg(pad(maxRecord), sni("a.example"))),
		"other message": records("\x02"+good[1:], 0), "alert between": records(good[:9], 0) + "\x15\x03\x01\x00\x02\x01\x00" + records(good[9:], 0),
		"something behind": records(good+"\x14", 0), "something behind, in pieces": records(good[:9], 0) + records(good[9:]+"\x14", 0), "empty": records(message(""), 0), "version only": records(message("\x03\x03"), 0),
		"long session": records(message(fixedPart[:34]+vec(1, strings.Repeat("s", 33))+fixedPart[35:]), 0), "no suites": records(message(fixedPart[:35]+"\x00\x00\x01\x00"), 0),
		"odd suites": records(message(fixedPart[:35]+"\x00\x03\x13\x01\x00\x01\x00"), 0), "no compression": records(message(fixedPart[:39]+"\x00"), 0),
		"extensions too short": records(message(fixedPart+vec(2, sni("a.example"))+"x"), 0), "extensions too long": records(message(fixedPart+"\x00\xff"+sni("a.example")), 0),
	} {
		if f, err := Peek(ended(in)); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %+v, %v", name, f.Hello, err)
		}
	}
	if f, err := Peek(slowly(t, records(message(fixedPart), 0))); err != nil || f.Kind != TLS {
		t.Errorf("without extensions: %v", err)
	}
}

func TestPeekRealClient(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "real.example", NextProtos: []string{"h2"}}).Handshake()
		client.Close()
	}()
	var in [MaxHello]byte
	n, err := server.Read(in[:])
	if err != nil {
		t.Fatal(err)
	}
	f, err := Peek(slowly(t, string(in[:n])))
	if err != nil || f.Hello.ServerName != "real.example" || !slices.Equal(f.Hello.ALPN, []string{"h2"}) || f.Hello.ECH {
		t.Errorf("%+v, %v", f.Hello, err)
	}
}
