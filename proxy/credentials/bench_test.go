// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// benchBodies are 10 MiB each.
func benchBodies() map[string][]byte {
	const size = 10 << 20
	const prose = "The operator opens a shell, asks for the task and checks \"what\\nwas\" sk-done: 100% of the options, %20 of them. "
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, size)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	fill := func(b []byte) []byte { return bytes.Repeat(b, size/len(b)+1)[:size] }
	chat, _ := json.Marshal(map[string]any{"role": "user", "content": prose + "línea — \n\t<tag> & more"})
	return map[string][]byte{
		"json":    fill(chat),
		"base64":  fill([]byte("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJopQ")),
		"binary":  random,
		"escaped": fill([]byte(`\u4e2d\u00e9%C3%A9`)),
	}
}

func BenchmarkSearch(b *testing.B) {
	s := testSet(b)
	for name, body := range benchBodies() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			buf := make([]byte, 32<<10)
			for b.Loop() {
				r, err := s.Request(github(), Options{}, "/", "", nil, "application/octet-stream", int64(len(body)), bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				drainTo(b, r.Body, buf)
			}
		})
	}
}

func BenchmarkRewriteStream(b *testing.B) {
	s := testSet(b)
	body := benchBodies()["json"]
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	buf := make([]byte, 32<<10)
	for b.Loop() {
		r, err := s.Request(github(), Options{BodyRewrite: true}, "/", "", nil, jsonCT, -1, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		drainTo(b, r.Body, buf)
	}
}

func BenchmarkScrub(b *testing.B) {
	s := testSet(b)
	for name, body := range benchBodies() {
		b.Run(name, func(b *testing.B) {
			r, err := s.Request(github(), Options{}, "/", "", nil, "", 0, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			buf := make([]byte, 32<<10)
			for b.Loop() {
				drainTo(b, answerBody(b, r, "application/json", "", bytes.NewReader(body)), buf)
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	s := testSet(b)
	h := http.Header{
		"X-Api-Key": {place1}, "Content-Type": {jsonCT}, "Accept": {"*/*"}, "User-Agent": {strings.Repeat("agent/1.0 ", 8)}, "Anthropic-Version": {"2023-06-01"},
		"Cookie": {strings.Repeat("a=b; ", 20)}, "X-Stainless-Runtime-Version": {"v22.1.0-some-longer-value"},
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Request(anthropic(), Options{}, "/v1/messages", "beta=true", h, jsonCT, 0, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func drainTo(b *testing.B, r io.Reader, buf []byte) {
	for {
		_, err := r.Read(buf)
		if err == io.EOF {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScrubMany is BenchmarkScrub for a sandbox that has had many values.
func BenchmarkScrubMany(b *testing.B) {
	random := rand.New(rand.NewPCG(5, 6))
	values := make([]string, MaxPast)
	for i := range values {
		token := make([]byte, 40)
		for k := range token {
			token[k] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"[random.IntN(64)]
		}
		values[i] = string(token)
	}
	s := newScrubber(values)
	for name, body := range benchBodies() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			buf := make([]byte, 32<<10)
			for b.Loop() {
				drainTo(b, &scrubReader{s: s, src: bytes.NewReader(body), least: MinScrub}, buf)
			}
		})
	}
}

// BenchmarkExpand measures by the compressed byte.
func BenchmarkExpand(b *testing.B) {
	r, err := testSet(b).Request(github(), Options{}, "/", "", nil, "", 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	mixed := append(bytes.Clone(benchBodies()["json"][:2<<20]), benchBodies()["binary"][:2<<20]...)
	for name, body := range map[string][]byte{"gzip": gzipped(mixed), "zstd": zstdPacked(mixed)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			buf := make([]byte, 32<<10)
			for b.Loop() {
				drainTo(b, answerBody(b, r, "", "", bytes.NewReader(body)), buf)
			}
		})
	}
}
