// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

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
	// abandoned says that what is still to be copied may never be taken.
	abandoned bool
}

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
		if err := t.openHost(); err != nil {
			return nil, err
		}
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
	t.copying.Go(func() { _, _ = io.Copy(os.Stdout, i.Stdout) })
	t.copying.Go(func() { _, _ = io.Copy(os.Stderr, i.Stderr) })
	return nil
}

func (t *streams) openHost() error {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if c, err := console.ConsoleFromFile(f); err == nil {
			t.host = c
			return nil
		}
	}
	f, err := os.Open("/dev/tty")
	if err != nil {
		return err
	}
	if t.host, err = console.ConsoleFromFile(f); err != nil {
		return errors.Join(fmt.Errorf("unable to get console: %w", err), f.Close())
	}
	return nil
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
		if err := t.host.SetRaw(); err != nil {
			return fmt.Errorf("set the terminal raw: %w", err)
		}
		go func() { _, _ = io.Copy(t.terminal, os.Stdin) }()
		// Reading a master whose other side is gone gives EIO: the end.
		t.copying.Go(func() { _, _ = io.Copy(os.Stdout, t.terminal) })
	}
	for _, c := range t.afterStart {
		_ = c.Close()
	}
	t.afterStart = nil
	return nil
}

func (t *streams) resize() {
	if t.terminal != nil {
		// The host's terminal may be gone (SIGHUP); the size does not matter then.
		_ = t.terminal.ResizeFrom(t.host)
	}
}

func (t *streams) close() {
	for _, c := range t.afterStart {
		_ = c.Close()
	}
	if !t.abandoned {
		t.copying.Wait()
	}
	if t.host != nil {
		_ = t.host.Reset()
	}
	if t.terminal != nil {
		_ = t.terminal.Close()
	}
}
