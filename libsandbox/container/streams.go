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

// streams are the standard streams of one process: the caller's own, pipes, or
// a terminal.
type streams struct {
	// afterStart are our copies of what the process holds.
	afterStart []io.Closer
	copying    sync.WaitGroup
	master     chan result
	terminal   console.Console
	host       console.Console
	// output are the read ends of the pipes that the process writes to.
	output []*os.File
	// abandoned says that what is still to be copied may never be taken.
	abandoned bool
}

// outputGrace is how long output is still copied after the process has ended, if
// another process holds its standard output or error: a shell's background job, for
// example. Docker's exec waits as long.
const outputGrace = 2 * time.Second

type result struct {
	console console.Console
	err     error
}

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

// pipes copies instead of handing our streams over, so that their owner and
// mode stay ours.
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

// withDeadlines replaces a file of libcontainer's, which is in blocking mode, by one of
// the same pipe that supports deadlines.
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

// copyOutput copies until from is at its end or its read deadline has passed. Then it
// copies the bytes that the pipe still holds, however slowly to takes them, and
// returns although another process can write more.
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

// pipeHolds returns how many bytes can be read from f at once. It leaves f
// non-blocking, as f.Fd would not.
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

// openHost finds the caller's terminal. If the caller has none, the process still gets a
// terminal; its output is copied, and its size stays the default.
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

// receive takes the terminal's master from the socket the container's init
// sends it to.
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

// started is called when the process runs.
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
		// Reading a master whose other side is gone gives EIO: the end.
		t.copying.Go(func() { _, _ = io.Copy(os.Stdout, t.terminal) })
	}
	for _, c := range t.afterStart {
		_ = c.Close()
	}
	t.afterStart = nil
	return nil
}

// endOfFile is the character by which a terminal tells its reader that input has ended
// (VEOF, termios(3)), as every new terminal has it: Ctrl-D.
const endOfFile = 4

// feed copies our input to a terminal. At its end it types endOfFile: a terminal has no
// other end of input. The first one only ends a line that is not complete, if there is
// one.
func feed(terminal io.Writer) {
	if _, err := io.Copy(terminal, os.Stdin); err == nil {
		_, _ = terminal.Write([]byte{endOfFile, endOfFile})
	}
}

func (t *streams) resize() {
	if t.terminal != nil && t.host != nil {
		// The host's terminal may be gone (SIGHUP); the size does not matter then.
		_ = t.terminal.ResizeFrom(t.host)
	}
}

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
		return // a terminal has no end while another process holds it
	}
	for _, f := range t.output {
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
	<-done
}
