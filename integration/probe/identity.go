// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// passPause is longer than the proxy caches which program owns a connection.
const passPause = 1300 * time.Millisecond

// copyFile copies a program and appends more.
func copyFile(from, to, more string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, append(b, more...), 0o755)
}

// run executes argv in a child process, without an environment if bare is true.
func run(argv []string, bare bool, files ...*os.File) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, files
	if bare {
		cmd.Env = []string{}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		report("", err)
	}
	os.Exit(0)
}

// fromMemory executes this program from a file that has no path.
func fromMemory(argv []string) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		report("", err)
	}
	fd, err := unix.MemfdCreate("m", 0)
	if err != nil {
		report("", err)
	}
	f := os.NewFile(uintptr(fd), "m")
	if _, err := f.Write(b); err != nil {
		report("", err)
	}
	report("", unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), append([]string{"m"}, argv...), os.Environ()))
}

// firstBytes is the number of bytes that the connecting program sends itself. The proxy
// waits for the remaining ones.
const firstBytes = 4

// begin connects, sends the first bytes of text, and returns the connection.
func begin(address, text string) *os.File {
	c, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		report("", err)
	}
	f, err := c.(*net.TCPConn).File()
	if err == nil {
		_, err = io.WriteString(c, text[:firstBytes])
	}
	if err != nil {
		report("", err)
	}
	_ = c.Close()
	time.Sleep(300 * time.Millisecond) // time for the proxy to identify the caller
	return f
}

// orphan opens a connection and passes it to another program, whose only parent is then the
// container's first process.
func orphan(program, address, text string) {
	cmd := exec.Command(program, "sendon", text)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{begin(address, text)}
	if err := cmd.Start(); err != nil {
		report("", err)
	}
	os.Exit(0)
}

// give opens a connection and sends it to the receiver at a unix socket. keep says whether
// this program keeps it open, too.
func give(at, address, text, keep string) {
	f := begin(address, text)
	c, err := net.Dial("unix", at)
	if err != nil {
		report("", err)
	}
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil); err != nil {
		report("", err)
	}
	if keep != "" {
		time.Sleep(2 * passPause)
	}
	runtime.KeepAlive(f)
	os.Exit(0)
}

// receive is the receiver of give.
func receive(at, text string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		report("", err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		report("", err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		report("", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		report("", fmt.Errorf("%d messages: %w", len(messages), err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		report("", err)
	}
	_ = c.Close()
	sendOn(fds[0], text)
}

// sendOn sends the remaining bytes of text on a connection that another program opened.
func sendOn(fd int, text string) {
	time.Sleep(passPause)
	f := os.NewFile(uintptr(fd), "connection")
	if _, err := io.WriteString(f, text[firstBytes:]); err != nil {
		report("", err)
	}
	b := make([]byte, 4096)
	n, err := f.Read(b)
	report(fmt.Sprintf("%q", b[:n]), err)
}

// hurry repeatedly connects, sends and exits, each time as a new process that ends at once:
// hurry TIMES ADDRESS TEXT.
func hurry(times, address, text string) {
	n, err := strconv.Atoi(times)
	if err != nil {
		report("", err)
	}
	for range n {
		_ = exec.Command("/proc/self/exe", "shot", address, text).Run()
	}
	report("sent", nil)
}

func shot(address, text string) {
	c, err := net.Dial("tcp", address)
	if err == nil {
		_, _ = io.WriteString(c, text)
	}
	os.Exit(0)
}

// siege tries to write to the program of every other process, some of which briefly belong
// to the host, and to trace the process, until it has tried enough of them.
func siege(enough int) {
	own, pids, opened, traced := strconv.Itoa(os.Getpid()), map[string]bool{}, 0, 0
	for len(pids) < enough {
		files, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, file := range files {
			pid := strings.Split(file, "/")[2]
			if pid == own {
				continue
			}
			pids[pid] = true
			if n, err := strconv.Atoi(pid); err == nil && unix.PtraceSeize(n) == nil {
				traced++
			}
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR | unix.O_TRUNC} {
				if fd, err := unix.Open(file, flags, 0); err == nil {
					opened++
					_ = unix.Close(fd)
				}
			}
		}
	}
	report(fmt.Sprintf("%d opened, %d traced of %d", opened, traced, len(pids)), nil)
}
