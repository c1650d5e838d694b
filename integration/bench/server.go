// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// upstreamCA is the name of the server's CA. A client sees from it whether TLS was
// terminated on the way.
const upstreamCA = "bench upstream"

var (
	body     = bytes.Repeat([]byte("x"), 128)
	response = append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: bench\r\n\r\n"), body...)
)

// server is the upstream: an HTTPS server that responds to every request with a few bytes,
// as cheaply as possible, and a port that sends endlessly. It writes its CA to caFile.
func server(caFile string) error {
	cert, ca, err := certificate()
	if err != nil {
		return err
	}
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(serverAddress, tlsPort))
	if err != nil {
		return err
	}
	raw, err := net.Listen("tcp", net.JoinHostPort(serverAddress, rawPort))
	if err != nil {
		return err
	}
	go func() {
		if err := model(cert); err != nil {
			log.Print(err)
		}
	}()
	go each(raw, func(c net.Conn) {
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	each(l, func(raw net.Conn) {
		c := tls.Server(raw, config)
		if c.Handshake() != nil {
			return
		}
		if c.ConnectionState().NegotiatedProtocol == "h2" {
			_ = serveHTTP2(c)
			return
		}
		br := bufio.NewReaderSize(c, 4<<10)
		for {
			// The requests of this benchmark have no body.
			for {
				line, err := br.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	})
	return nil
}

func each(l net.Listener, f func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			f(c)
		}()
	}
}

// relay copies connections to their destination. It supports CONNECT and nothing else, the
// least that a proxy can do.
func relay(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var open atomic.Int64
	each(l, func(c net.Conn) {
		open.Add(1)
		defer func() {
			if open.Add(-1) == 0 {
				// All processes of root share the kernel's pipe budget. The library's pipes
				// are closed by the second collection.
				runtime.GC()
				runtime.GC()
			}
		}()
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		defer up.Close()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.Copy(up, c)
			_ = up.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, up)
		_ = c.Close()
		<-sent
	})
	return nil
}

// certificate creates a CA and a certificate signed by it for the upstream's names.
func certificate() (_ tls.Certificate, caPEM []byte, err error) {
	var out tls.Certificate
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return out, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: upstreamCA}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return out, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return out, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: inspectedName}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{inspectedName, splicedName, rawName}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return out, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
