// SPDX-License-Identifier: Apache-2.0

// Command probe is the hostile or ordinary program inside a test sandbox. It
// tries one thing and prints what happened on one line, so that a test can
// compare it with what the other side saw.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each attempt: a refusal must be quick to be noticed as one.
const patience = 10 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe VERB [ARG...]")
		os.Exit(2)
	}
	verb, args := os.Args[1], append(os.Args[2:], "", "", "")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch verb {
	case "http": // http METHOD URL [BODY]
		request(ctx, args[0], args[1], args[2], http.ProxyFromEnvironment)
	case "direct": // like http, but ignores the proxy variables
		request(ctx, args[0], args[1], args[2], nil)
	case "lookup":
		addrs, err := net.DefaultResolver.LookupHost(ctx, args[0])
		report(strings.Join(addrs, " "), err)
	case "dial": // dial NETWORK ADDRESS: connects, writes a line, reads one
		dial(ctx, args[0], args[1])
	case "read":
		b, err := os.ReadFile(args[0])
		report(fmt.Sprintf("%d bytes", len(b)), err)
	case "write":
		report("written", os.WriteFile(args[0], []byte("x"), 0o644))
	case "swap": // swap PATH TARGET: PATH becomes a link to TARGET
		err := os.Rename(args[0], args[0]+".old")
		if err == nil {
			err = os.Symlink(args[1], args[0])
		}
		report("swapped", err)
	case "unshare":
		report("unshared", unix.Unshare(unix.CLONE_NEWUSER))
	case "mount":
		report("mounted", unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	case "raw":
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		report("raw socket", err)
	case "families": // the address families and netlink protocols that open
		var open []string
		for f := range 128 {
			if fd, err := unix.Socket(f, unix.SOCK_DGRAM, 0); err == nil {
				open = append(open, fmt.Sprint(f))
				_ = unix.Close(fd)
			} else if !errors.Is(err, unix.EPERM) {
				open = append(open, fmt.Sprintf("%d:%v", f, err))
			}
		}
		for p := 1; p < 32; p++ {
			if fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, p); !errors.Is(err, unix.EPERM) {
				open = append(open, fmt.Sprintf("netlink/%d", p))
				_ = unix.Close(fd)
			}
		}
		report(strings.Join(open, " "), nil)
	case "mark":
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_MARK, 0x6f736801)
		}
		report("marked", err)
	case "fds":
		entries, err := os.ReadDir("/proc/self/fd")
		var names []string
		for _, e := range entries {
			target, _ := os.Readlink("/proc/self/fd/" + e.Name())
			names = append(names, e.Name()+"="+target)
		}
		report(strings.Join(names, " "), err)
	case "status":
		b, err := os.ReadFile("/proc/self/status")
		report(strings.ReplaceAll(string(b), "\n", " | "), err)
	case "sleep":
		d, err := time.ParseDuration(args[0])
		if err == nil {
			time.Sleep(d)
		}
		report("slept", err)
	default:
		fmt.Fprintf(os.Stderr, "probe: unknown verb %q\n", verb)
		os.Exit(2)
	}
}

// report prints "ok: …" or "error: …" and exits 0 or 1.
func report(what string, err error) {
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			fmt.Printf("error: %s: %v\n", unix.ErrnoName(errno), err)
		} else {
			fmt.Printf("error: %v\n", err)
		}
		os.Exit(1)
	}
	fmt.Printf("ok: %s\n", what)
}

func request(ctx context.Context, method, target, body string, proxy func(*http.Request) (*url.URL, error)) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		report("", err)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: proxy, TLSClientConfig: &tls.Config{}, ForceAttemptHTTP2: true}}
	resp, err := client.Do(req)
	if err != nil {
		report("", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	report(fmt.Sprintf("%s %d %s", resp.Proto, resp.StatusCode, strings.TrimSpace(string(b))), err)
}

func dial(ctx context.Context, network, address string) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		report("", err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		report("", err)
	}
	if _, err := io.WriteString(c, "probe\n"); err != nil {
		report("", err)
	}
	b := make([]byte, 512)
	n, err := c.Read(b)
	report(fmt.Sprintf("%q", b[:n]), err)
}
