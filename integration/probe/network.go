// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// answerTimeout is how long the probe waits for an answer to its own bytes.
const answerTimeout = 700 * time.Millisecond

// query asks a name server: query NETWORK SERVER TYPE NAME.
func query(ctx context.Context, network, server, kind, name string) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	c := &dns.Client{Net: network, Timeout: answerTimeout}
	reply, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		report("", err)
	}
	var answers []string
	for _, rr := range reply.Answer {
		answers = append(answers, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	report(strings.TrimSpace(dns.RcodeToString[reply.Rcode]+" "+strings.Join(answers, ", ")), nil)
}

// say sends text, in Go's quoted form, and prints the answer that arrives in time. If
// device is not empty, the socket is bound to it.
func say(ctx context.Context, network, address, text, device string) {
	text, err := strconv.Unquote(`"` + text + `"`)
	if err != nil {
		report("", err)
	}
	var d net.Dialer
	if device != "" {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			e := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
			return errors.Join(e, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		report("", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		report("", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(answerTimeout))
	b, err := io.ReadAll(io.LimitReader(c, 1<<16))
	if len(b) > 0 {
		err = nil
	}
	report(fmt.Sprintf("%q", b), err)
}

// floodTimeout is how long one of many connections may take. An emulated machine needs most
// of it.
const floodTimeout = 40 * time.Second

// flood opens n connections at once, keeps them open, and prints how many there were.
func flood(n int, address string) {
	var open atomic.Int64
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			c, err := net.DialTimeout("tcp", address, floodTimeout)
			if err != nil {
				return
			}
			defer c.Close()
			open.Add(1)
			_, _ = io.WriteString(c, "GET /flood HTTP/1.1\r\nHost: denied.test\r\n\r\n")
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.Copy(io.Discard, c)
		})
	}
	wait.Wait()
	report(strconv.FormatInt(open.Load(), 10), nil)
}

// samePort sends a request from the port of an existing connection to address. This is
// allowed because the other ends differ.
func samePort(ctx context.Context, address, method, target string) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(e, err)
	}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		report("", err)
	}
	defer c.Close()
	d.LocalAddr = c.LocalAddr()
	req, err := http.NewRequestWithContext(ctx, method, target, http.NoBody)
	if err != nil {
		report("", err)
	}
	send(req, &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext})
}

// stream reads lines of url until they end or the time is up.
func stream(ctx context.Context, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		report("", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		report("", err)
	}
	defer resp.Body.Close()
	fmt.Println("status", resp.StatusCode)
	n := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); n++ {
	}
	if ctx.Err() != nil {
		report("", errors.New("still open"))
	}
	report(fmt.Sprintf("%d lines, then its end", n), nil)
}

// tunnel exchanges bytes with an echo until it ends or the time is up.
func tunnel(ctx context.Context, address string) {
	c, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		report("", err)
	}
	defer c.Close()
	b := make([]byte, 4)
	for n := 0; ctx.Err() == nil; n++ {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, err := io.WriteString(c, "ping")
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			fmt.Println("echoes", n)
			report("ended", nil)
			return
		}
		if n == 0 {
			fmt.Println("status open")
		}
		time.Sleep(10 * time.Millisecond)
	}
	report("", errors.New("still open"))
}

// issuer prints the root with which a server was verified.
func issuer(ctx context.Context, host string) {
	d := tls.Dialer{Config: &tls.Config{ServerName: host}}
	c, err := d.DialContext(ctx, "tcp", host+":443")
	if err != nil {
		report("", err)
	}
	defer c.Close()
	chain := c.(*tls.Conn).ConnectionState().VerifiedChains[0]
	report(fmt.Sprintf("%x", sha256.Sum256(chain[len(chain)-1].Raw)), nil)
}

// socket opens a socket that needs no privilege and sends with it.
func socket(kind, address string) {
	family, typ, proto := unix.AF_INET, unix.SOCK_DGRAM, 0
	ap, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		report("", err)
	}
	var to unix.Sockaddr
	if ip := ap.IP.To4(); ip != nil {
		to = &unix.SockaddrInet4{Port: ap.Port, Addr: [4]byte(ip)}
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: ap.Port, Addr: [16]byte(ap.IP)}
	}
	data := []byte("c2VjcmV0")
	switch kind {
	case "ping":
		proto = unix.IPPROTO_ICMP
		data = append([]byte{8, 0, 0, 0, 0, 0, 0, 1}, data...)
	case "sctp":
		typ, proto = unix.SOCK_STREAM, unix.IPPROTO_SCTP
	case "udplite":
		proto = unix.IPPROTO_UDPLITE
	case "mptcp":
		typ, proto = unix.SOCK_STREAM, unix.IPPROTO_MPTCP
	case "raw":
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_RAW
	}
	fd, err := unix.Socket(family, typ, proto)
	if err != nil {
		report("", fmt.Errorf("socket: %w", err))
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2})
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err := unix.Connect(fd, to); err != nil {
		report("", fmt.Errorf("connect: %w", err))
	}
	if _, err := unix.Write(fd, data); err != nil {
		report("", fmt.Errorf("send: %w", err))
	}
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	if err != nil {
		report("", fmt.Errorf("receive: %w", err))
	}
	report(fmt.Sprintf("%q", b[:n]), nil)
}

// reconnect connects a socket to an allowed destination, and then the same socket to
// another one: reconnect NETWORK FIRST SECOND.
func reconnect(network, first, second string) {
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	at := func(s string) *unix.SockaddrInet4 {
		a, err := net.ResolveUDPAddr("udp4", s)
		if err != nil {
			report("", err)
		}
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}
	}
	fd, err := unix.Socket(unix.AF_INET, typ, 0)
	if err == nil {
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2})
		err = unix.Connect(fd, at(first))
	}
	if err != nil {
		report("", fmt.Errorf("first: %w", err))
	}
	again(fd, at(second))
}

// again connects a connected socket to another destination, and sends.
func again(fd int, to unix.Sockaddr) {
	// AF_UNSPEC ends the connection; the socket keeps all its marks.
	unspec := [16]byte{}
	if err := connectRaw(fd, unspec[:]); err != nil {
		report("", fmt.Errorf("unspec: %w", err))
	}
	if err := unix.Connect(fd, to); err != nil {
		report("", fmt.Errorf("second: %w", err))
	}
	_, err := unix.Write(fd, []byte("c2VjcmV0 GET / HTTP/1.0\r\n\r\n"))
	report("sent", err)
}

// boomerang makes the proxy connect to this program itself, under an allowed name, and uses
// the accepted socket for another destination: boomerang PORT NAME SECOND.
func boomerang(port, name, second string) {
	l, err := net.Listen("tcp4", ":"+port)
	if err != nil {
		report("", err)
	}
	c, err := net.Dial("tcp4", net.JoinHostPort(name, port))
	if err == nil {
		_, err = io.WriteString(c, "hello")
	}
	if err != nil {
		report("", fmt.Errorf("first: %w", err))
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(timeout))
	accepted, err := l.Accept()
	if err != nil {
		report("", fmt.Errorf("accept: %w", err))
	}
	fmt.Println("accepted")
	to, err := netip.ParseAddrPort(second)
	if err != nil {
		report("", err)
	}
	f, err := accepted.(*net.TCPConn).File()
	if err == nil {
		err = unix.SetNonblock(int(f.Fd()), false)
	}
	if err != nil {
		report("", err)
	}
	_ = unix.SetsockoptTimeval(int(f.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2})
	again(int(f.Fd()), &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}

// besieged makes requests, each on a new connection, while other processes of the sandbox
// start and end.
func besieged(ctx context.Context, times, target string) {
	n, err := strconv.Atoi(times)
	if err != nil {
		report("", err)
	}
	for range 2 {
		forks := exec.CommandContext(ctx, "/proc/self/exe", "forks")
		if err := forks.Start(); err != nil {
			report("", err)
		}
		defer func() {
			_ = forks.Process.Kill()
			_ = forks.Wait()
		}()
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	done, last := 0, error(nil)
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			report("", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			last = err
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			done++
		} else {
			last = errors.New(resp.Status)
		}
	}
	text := fmt.Sprintf("%d of %d", done, n)
	if last != nil {
		text += ": " + last.Error()
	}
	fmt.Println("ok: " + text)
}
