// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/inspect"
)

var (
	errSilent = errors.New("the client said nothing")
	// past as a deadline ends a read that is under way.
	past = time.Unix(1, 0)
)

// await waits until somebody speaks on a connection whose client is silent. Only
// what the server says first makes bytes that nobody looks at acceptable: a client
// that merely waits before it says another name in TLS is judged by that.
func (c *connection) await(ctx context.Context, to target, dec policy.Decision, up net.Conn) (preface, net.Conn, []byte, error) {
	dec, ok := c.begin(to, dec, true)
	if !ok {
		return preface{}, up, nil, errReloaded
	}
	// In TLS and HTTP, which these are for, the client begins.
	if dec.Inspect || to.port == 443 {
		first, err := c.peek(c.server.timeouts.idle)
		if err == nil && first.Kind == inspect.Unknown {
			err = errSilent
		}
		return first, up, nil, err
	}
	if up == nil {
		var err error
		if up, err = c.dial(ctx, to, dec); err != nil {
			return preface{}, nil, nil, err
		}
	}
	greeting, first, err := c.firstWord(ctx, up)
	return first, up, greeting, err
}

// firstWord is what the server says, if it is the first to speak, or else what the
// client begins with.
func (c *connection) firstWord(ctx context.Context, up net.Conn) ([]byte, preface, error) {
	stop := context.AfterFunc(ctx, func() { _ = up.Close() })
	defer stop()
	type word struct {
		text []byte
		err  error
	}
	said := make(chan word, 1)
	_ = c.client.SetReadDeadline(time.Now().Add(c.server.timeouts.idle))
	go func() {
		b := make([]byte, maxGreeting)
		n, err := up.Read(b)
		_ = c.client.SetReadDeadline(past)
		said <- word{b[:n], err}
	}()
	br := takeReader(&smallReaders, c.client)
	_, err := br.Peek(1)
	c.client.unread(br)
	giveReader(&smallReaders, br)
	_ = up.SetReadDeadline(past)
	w := <-said
	_ = up.SetReadDeadline(time.Time{})
	switch {
	case len(w.text) > 0:
		_ = c.client.SetReadDeadline(time.Time{})
		return w.text, preface{}, nil
	case !timedOut(w.err):
		return nil, preface{}, fmt.Errorf("the other side ended before anything was said: %w", w.err)
	case timedOut(err):
		return nil, preface{}, errSilent
	case err != nil:
		return nil, preface{}, err
	}
	first, err := c.peek(c.server.timeouts.head)
	return nil, first, err
}
