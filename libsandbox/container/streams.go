// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"
)

// streams are the standard streams of one process: the caller's own, pipes, or a terminal.
type streams struct {
	// afterStart are our copies of files of the process. They are closed when it has
	// started.
	afterStart []io.Closer
	// copying are the goroutines that copy output.
	copying sync.WaitGroup
	// master gets the master of the process's terminal, terminal has it then.
	master   chan result
	terminal console.Console
	// host is the caller's terminal, nil if there is none.
	host console.Console
	// output are the read ends of the pipes that the process writes to.
	output []*os.File
	// abandoned says that no reader may be left for the output.
	abandoned bool
}

// outputGrace is how long output is copied after the process has ended, if another process
// still has its standard output or error, for example the background job of a shell.
// Docker's exec waits as long.
const outputGrace = 2 * time.Second

// result is a terminal's master, or why there is none.
type result struct {
	console console.Console
	err     error
}

// attach prepares the standard streams of p.
func (c *Container) attach(p *libcontainer.Process, o *ProcessConfig, detach bool) (*streams, error) {
	t := &streams{}
	switch {
	case o.Spec.Terminal && detach:
		sock, err := dial(o.ConsoleSocket)
		if err != nil {
			return nil, err
		}
		p.ConsoleSocket = sock
		t.afterStart = append(t.afterStart, sock)
	case o.Spec.Terminal:
		t.openHost()
		parent, child, err := utils.NewSockPair("console")
		if err != nil {
			return nil, err
		}
		p.ConsoleSocket = child
		t.afterStart = append(t.afterStart, parent, child)
		t.master = make(chan result, 1)
		go func() {
			m, err := receive(parent)
			t.master <- result{m, err}
		}()
	case detach:
		p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
	default:
		return t, c.pipes(p, t)
	}
	return t, nil
}

// pipes gives p pipes and copies between them and our streams. p does not get our streams
// themselves, so that it cannot change their owner and mode.
func (c *Container) pipes(p *libcontainer.Process, t *streams) error {
	config := c.c.Config()
	uid, err := config.HostRootUID()
	if err != nil {
		return err
	}
	gid, err := config.HostRootGID()
	if err != nil {
		return err
	}
	i, err := p.InitializeIO(uid, gid)
	if err != nil {
		return err
	}
	for _, s := range []any{p.Stdin, p.Stdout, p.Stderr} {
		if closer, ok := s.(io.Closer); ok {
			t.afterStart = append(t.afterStart, closer)
		}
	}
	go func() {
		_, _ = io.Copy(i.Stdin, os.Stdin)
		_ = i.Stdin.Close()
	}()
	for _, c := range []struct {
		to   *os.File
		from io.Reader
	}{{os.Stdout, i.Stdout}, {os.Stderr, i.Stderr}} {
		pipe, ok := c.from.(*os.File)
		if !ok {
			return fmt.Errorf("libcontainer gives a %T for the output of a process, not a pipe", c.from)
		}
		from, err := withDeadlines(pipe)
		if err != nil {
			return err
		}
		t.output = append(t.output, from)
		t.copying.Go(func() { copyOutput(c.to, from) })
	}
	return nil
}

// withDeadlines closes f, which libcontainer has put into blocking mode, and returns a file
// of the same pipe that supports deadlines.
func withDeadlines(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate an output pipe: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make an output pipe non-blocking: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "output"), nil
}

// copyOutput copies from the pipe from until its end, or until its read deadline has passed.
// After the deadline it copies only the bytes that the pipe holds, without a limit of time,
// and returns although another process can write more.
func copyOutput(to, from *os.File) {
	if _, err := io.Copy(to, from); !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	n, err := pipeHolds(from)
	if err != nil {
		return
	}
	_ = from.SetReadDeadline(time.Time{})
	_, _ = io.CopyN(to, from, int64(n))
}

// pipeHolds returns how many bytes the pipe f holds. It does not use f.Fd, which would make
// f blocking.
func pipeHolds(f *os.File) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	// TIOCINQ is FIONREAD (ioctl_tty(2)).
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); e != nil {
		return 0, e
	}
	return n, err
}

// openHost finds the caller's terminal. Without one, the process still gets a terminal, whose
// output is copied and whose size is the default.
func (t *streams) openHost() {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if c, err := console.ConsoleFromFile(f); err == nil {
			t.host = c
			return
		}
	}
	f, err := os.Open("/dev/tty")
	if err != nil {
		return
	}
	c, err := console.ConsoleFromFile(f)
	if err != nil {
		_ = f.Close()
		return
	}
	t.host = c
}

// receive receives the master of the terminal, which the container's init process sends.
func receive(sock *os.File) (console.Console, error) {
	data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(sock.Fd()), data, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive console: no descriptor came: %w", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive console: no descriptor came: %w", err)
	}
	c, err := console.ConsoleFromFile(os.NewFile(uintptr(fds[0]), "console"))
	if err != nil {
		return nil, err
	}
	return c, console.ClearONLCR(c.Fd())
}

// started is called when the process has started. It begins to copy from and to a terminal,
// and closes our copies of the process's files.
func (t *streams) started() error {
	if t.master != nil {
		r := <-t.master
		if r.err != nil {
			return r.err
		}
		t.terminal = r.console
		if t.host != nil {
			if err := t.host.SetRaw(); err != nil {
				return fmt.Errorf("set the terminal raw: %w", err)
			}
		}
		go feed(t.terminal)
		// At the end, when no process has the terminal open, reading the master gives EIO.
		t.copying.Go(func() { _, _ = io.Copy(os.Stdout, t.terminal) })
	}
	for _, c := range t.afterStart {
		_ = c.Close()
	}
	t.afterStart = nil
	return nil
}

// endOfFile is the character that ends the input of a new terminal (VEOF, termios(3)):
// Ctrl-D.
const endOfFile = 4

// feed copies our input to a terminal. At the end it writes endOfFile, because a terminal has
// no other end of input. It writes it twice: after an incomplete line, the first one only
// ends the line.
func feed(terminal io.Writer) {
	if _, err := io.Copy(terminal, os.Stdin); err == nil {
		_, _ = terminal.Write([]byte{endOfFile, endOfFile})
	}
}

// resize gives the process's terminal the size of the caller's terminal.
func (t *streams) resize() {
	if t.terminal != nil && t.host != nil {
		// The caller's terminal may have been closed (SIGHUP). Then the size has no meaning.
		_ = t.terminal.ResizeFrom(t.host)
	}
}

// close waits for the output and restores the caller's terminal.
func (t *streams) close() {
	for _, c := range t.afterStart {
		_ = c.Close()
	}
	t.finish()
	if t.host != nil {
		_ = t.host.Reset()
	}
	if t.terminal != nil {
		_ = t.terminal.Close()
	}
}

// finish waits until all output of the process is copied.
func (t *streams) finish() {
	if t.abandoned {
		return
	}
	done := make(chan struct{})
	go func() {
		t.copying.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-time.After(outputGrace):
	}
	if t.terminal != nil {
		return // a terminal has no end while another process has it open
	}
	for _, f := range t.output {
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
	<-done
}
