// SPDX-License-Identifier: Apache-2.0

// Command probe is the hostile or ordinary program inside a test sandbox. It makes one
// attempt and prints the result on one line, so that a test can compare it with what the
// other side received.
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
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// timeout limits each attempt: a refusal must be fast to be recognized as one.
const timeout = 10 * time.Second

func main() {
	if name := filepath.Base(os.Args[0]); slices.Contains(traps, name) {
		spring(name)
		return
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe VERB [ARG...]")
		os.Exit(2)
	}
	verb, args := os.Args[1], append(os.Args[2:], "", "", "", "")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch verb {
	case "environments": // of every process that is seen
		environments()
	case "keyed": // keyed METHOD URL NAME:VALUE [BODY]: http with a header field, $NAME in it filled in
		keyed(ctx, args[0], args[1], os.ExpandEnv(args[2]), os.ExpandEnv(args[3]))
	case "proxied": // proxied METHOD URL BODY: through the proxy, whatever NO_PROXY says
		proxy, err := url.Parse(os.Getenv("HTTP_PROXY"))
		if err != nil {
			report("", err)
		}
		request(ctx, args[0], args[1], args[2], http.ProxyURL(proxy), true)
	case "signed": // signed METHOD URL [BODY]: with AWS's signature
		signed(ctx, args[0], args[1], os.ExpandEnv(args[2]), true)
	case "signed1": // like signed, without HTTP/2
		signed(ctx, args[0], args[1], os.ExpandEnv(args[2]), false)
	case "message": // message URL TEXT: on a WebSocket, $NAME in it filled in
		message(ctx, args[0], os.ExpandEnv(args[1]))
	case "http": // http METHOD URL [BODY]
		request(ctx, args[0], args[1], args[2], http.ProxyFromEnvironment, true)
	case "http1": // like http, without HTTP/2
		request(ctx, args[0], args[1], args[2], http.ProxyFromEnvironment, false)
	case "direct": // like http, but ignores the proxy variables
		request(ctx, args[0], args[1], args[2], nil, true)
	case "stream":
		stream(ctx, args[0])
	case "tunnel":
		tunnel(ctx, args[0])
	case "issuer":
		issuer(ctx, args[0])
	case "query":
		query(ctx, args[0], args[1], args[2], args[3])
	case "say": // say NETWORK ADDRESS TEXT [DEVICE]
		say(ctx, args[0], args[1], args[2], args[3])
	case "socket": // socket KIND ADDRESS
		socket(args[0], args[1])
	case "reconnect":
		reconnect(args[0], args[1], args[2])
	case "boomerang":
		boomerang(args[0], args[1], args[2])
	case "flood": // flood TIMES ADDRESS
		n, err := strconv.Atoi(args[0])
		if err != nil {
			report("", err)
		}
		flood(n, args[1])
	case "heads": // heads CONNECTIONS HOST
		n, err := strconv.Atoi(args[0])
		if err != nil {
			report("", err)
		}
		heads(n, args[1])
	case "sameport": // sameport ADDRESS METHOD URL
		samePort(ctx, args[0], args[1], args[2])
	case "soak": // soak DURATION [KIND...]: without those kinds of traffic
		kinds := usual()
		for _, without := range args[1:] {
			delete(kinds, without)
		}
		soak(args[0], kinds)
	case "soakkeys": // soakkeys DURATION: with a key that it has not, and a model
		soak(args[0], keys())
	case "copy": // copy FROM TO [MORE]
		report("copied", copyFile(args[0], args[1], args[2]))
	case "link":
		report("linked", os.Link(args[0], args[1]))
	case "symlink": // symlink TARGET LINK
		report("linked", os.Symlink(args[0], args[1]))
	case "rename":
		report("renamed", os.Rename(args[0], args[1]))
	case "run": // run PROGRAM [ARG...]
		run(os.Args[2:], false)
	case "bare": // like run, with an empty environment
		run(os.Args[2:], true)
	case "memory": // memory VERB [ARG...]
		fromMemory(os.Args[2:])
	case "as": // as ARGV0 VERB [ARG...]: this program under another name
		report("", unix.Exec("/proc/self/exe", os.Args[2:], os.Environ()))
	case "deleted": // deleted VERB [ARG...]: the program's file is gone before it acts
		exe, err := os.Executable()
		if err == nil {
			err = os.Remove(exe)
		}
		if err != nil {
			report("", err)
		}
		os.Args = append(os.Args[:1], os.Args[2:]...)
		main()
	case "orphan": // orphan PROGRAM ADDRESS TEXT
		orphan(args[0], args[1], args[2])
	case "give": // give SOCKET ADDRESS TEXT [KEEP]
		give(args[0], args[1], args[2], args[3])
	case "receive": // receive SOCKET TEXT
		receive(args[0], args[1])
	case "sendon":
		sendOn(3, args[0])
	case "hurry":
		hurry(args[0], args[1], args[2])
	case "shot":
		shot(args[0], args[1])
	case "listen": // listen ADDRESS: echoes for a minute
		l, err := net.Listen("tcp", args[0])
		if err != nil {
			report("", err)
		}
		time.AfterFunc(time.Minute, func() { _ = l.Close() })
		for {
			c, err := l.Accept()
			if err != nil {
				report("closed", nil)
				break
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	case "calls":
		calls()
	case "forks": // starts and ends processes until it is killed
		for {
			_ = exec.Command("/proc/self/exe", "stat", "/").Run()
		}
	case "besieged": // besieged TIMES URL: requests on a connection each, beside two loops of forks
		besieged(ctx, args[0], args[1])
	case "privileged": // privileged [nobody]
		privileged(os.Args[2:])
	case "kernelfamilies":
		kernelFamilies()
	case "abi":
		abi()
	case "signal": // signal PID: sends signal 0, which only asks whether it may
		n, err := strconv.Atoi(args[0])
		if err != nil {
			report("", err)
		}
		report(args[0]+"="+name(errnoOf(unix.Kill(n, 0))), nil)
	case "puppet": // puppet PROGRAM ADDRESS TEXT
		puppet(args[0], args[1], args[2])
	case "mem": // mem PID|child
		memoryOf(args[0])
	case "unix": // unix ADDRESS
		unixDial(args[0])
	case "peek": // peek FILE...
		peek(os.Args[2:])
	case "search": // search HEX...
		search(os.Args[2:])
	case "stat":
		_, err := os.Lstat(args[0])
		report("there", err)
	case "remove":
		report("removed", os.Remove(args[0]))
	case "siege": // siege PROCESSES
		n, err := strconv.Atoi(args[0])
		if err != nil {
			report("", err)
		}
		siege(n)
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
	case "families": // the address families, IP's protocols and netlink's that open, and other errors than a kernel's without them
		var open []string
		for f := range 128 {
			if fd, err := unix.Socket(f, unix.SOCK_DGRAM, 0); err == nil {
				open = append(open, fmt.Sprint(f))
				_ = unix.Close(fd)
			} else if !errors.Is(err, unix.EAFNOSUPPORT) {
				open = append(open, fmt.Sprintf("%d:%v", f, err))
			}
		}
		for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
			for typ := 1; typ < 11; typ++ {
				for p := range 300 {
					fd, err := unix.Socket(f, typ, p)
					if err == nil {
						open = append(open, fmt.Sprintf("%d/%d/%d", f, typ, p))
						_ = unix.Close(fd)
					} else if errors.Is(err, unix.EPERM) != (typ == unix.SOCK_RAW) {
						open = append(open, fmt.Sprintf("%d/%d/%d:%v", f, typ, p, err))
					}
				}
			}
		}
		for p := 1; p < 32; p++ {
			if fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, p); !errors.Is(err, unix.EPROTONOSUPPORT) {
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
	case "notify": // notify MESSAGE...: each to NOTIFY_SOCKET, one after the other
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			report("", err)
		}
		for _, m := range os.Args[2:] {
			if _, err := io.WriteString(c, m); err != nil {
				report("", err)
			}
		}
		time.Sleep(timeout)
	case "sleep":
		d, err := time.ParseDuration(args[0])
		if err == nil {
			time.Sleep(d)
		}
		report("slept", err)
	case "leave": // leave BYTES DURATION: prints that much and ends; a child holds its output that long
		leave(args[0], args[1])
	case "self": // who and where this is, and its environment
		dir, err := os.Getwd()
		report(fmt.Sprintf("uid=%d gid=%d cwd=%s %s", os.Getuid(), os.Getgid(), dir, strings.Join(os.Environ(), " ")), err)
	case "serve": // serve PORT: answers HTTP over TCP and echoes UDP, and prints what it got
		serve(args[0])
	case "cat":
		b, err := os.ReadFile(args[0])
		report(fmt.Sprintf("%q", b), err)
	case "stdin": // reads standard input to its end
		text, err := io.ReadAll(os.Stdin)
		report(fmt.Sprintf("read %q", text), err)
	case "isatty": // says whether standard output is a terminal
		_, err := unix.IoctlGetTermios(1, unix.TCGETS)
		report("terminal", err)
	case "terminal": // reads one line from a terminal
		if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
			report("", err)
		}
		var line string
		_, err := fmt.Scanln(&line)
		report(fmt.Sprintf("terminal, read %q", line), err)
	case "stay": // like sleep, and no signal but SIGKILL ends it, once it has said so
		signal.Ignore()
		fmt.Println("staying")
		d, err := time.ParseDuration(args[0])
		if err == nil {
			time.Sleep(d)
		}
		report("stayed", err)
	default:
		fmt.Fprintf(os.Stderr, "probe: unknown verb %q\n", verb)
		os.Exit(2)
	}
}

// leave starts a child that inherits the output, prints size bytes in lines, and exits
// before the child does.
func leave(size, duration string) {
	n, err := strconv.Atoi(size)
	if err != nil {
		report("", err)
	}
	child := exec.Command("/proc/self/exe", "sleep", duration)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		report("", err)
	}
	line := strings.Repeat("x", 63) + "\n"
	for range n / len(line) {
		if _, err := os.Stdout.WriteString(line); err != nil {
			report("", err)
		}
	}
	report("left", nil)
}

// report prints "ok: …" or "error: …" and exits with status 0 or 1.
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

func environments() {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		report("", err)
	}
	var all []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			all = append(all, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	report(strings.Join(all, "|"), nil)
}

func keyed(ctx context.Context, method, target, field, body string) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		report("", err)
	}
	name, value, _ := strings.Cut(field, ":")
	req.Header.Set(name, value)
	perform(req, http.ProxyFromEnvironment, true)
}

func request(ctx context.Context, method, target, body string, proxy func(*http.Request) (*url.URL, error), h2 bool) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		report("", err)
	}
	perform(req, proxy, h2)
}

func perform(req *http.Request, proxy func(*http.Request) (*url.URL, error), h2 bool) {
	send(req, &http.Transport{Proxy: proxy, TLSClientConfig: &tls.Config{}, ForceAttemptHTTP2: h2})
}

func send(req *http.Request, by http.RoundTripper) {
	client := &http.Client{Transport: by}
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

// serve answers until a signal ends it. Its output is the log of the requests that reached
// it.
func serve(port string) {
	udp, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		report("", err)
	}
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				report("", err)
			}
			fmt.Printf("got udp %q\n", b[:n])
			_, _ = udp.WriteTo(b[:n], from)
		}
	}()
	tcp, err := net.Listen("tcp", ":"+port)
	if err != nil {
		report("", err)
	}
	fmt.Println("serving")
	s := &http.Server{ReadHeaderTimeout: timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("got %s %s\n", r.Method, r.URL.Path)
		fmt.Fprintf(w, "served %s %s", r.Method, r.URL.Path)
	})}
	go func() {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, unix.SIGTERM)
		<-stop
		fmt.Println("terminated")
		os.Exit(0)
	}()
	report("", s.Serve(tcp))
}
