// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"openshell.dev/runtime/proxy/inspect"
)

// preface is the first bytes of a client, and the host that they name in TLS or HTTP.
type preface struct {
	inspect.First
	host string
}

// peek classifies the client's first bytes, for which it waits up to the given time. A
// silent client is not an error: in some protocols the server sends first.
func (c *connection) peek(wait time.Duration) (first preface, err error) {
	if err := c.account.Take(c.ctx, openingCost); err != nil {
		return first, err
	}
	defer c.account.Release(openingCost)
	br := takeReader(&readers, c.client)
	defer giveReader(&readers, br)
	defer c.client.unread(br)
	defer func() { _ = c.client.SetReadDeadline(time.Time{}) }()
	_ = c.client.SetReadDeadline(time.Now().Add(wait))
	if _, err := br.Peek(1); err != nil {
		if timedOut(err) {
			err = nil
		}
		return first, err
	}
	if first.First, err = c.classify(br); err != nil {
		return first, err
	}
	switch first.Kind {
	case inspect.TLS:
		first.host = first.Hello.ServerName
	case inspect.HTTP1:
		first.host = inspect.Host(br, MaxHead)
	default: // names no host
	}
	return first, nil
}

func timedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

var (
	errSilent = errors.New("the client said nothing")
	// past as a deadline ends a read that is under way.
	past = time.Unix(1, 0)
)

// await waits until somebody sends something on a connection whose client is silent: it
// returns the server's greeting, or completes r with the client's first bytes. Only a
// greeting makes it acceptable to forward bytes that nobody looks at: a client that just
// waits before it names another host in TLS is judged by that host.
func (c *connection) await(ctx context.Context, r *route) (greeting []byte, err error) {
	dec, ok := c.begin(r.to, r.dec, true)
	if !ok {
		return nil, errReloaded
	}
	// In TLS and HTTP, which these are for, the client begins.
	if dec.Inspect || r.to.port == 443 {
		r.first, err = c.peek(c.server.timeouts.idle)
		if err == nil && r.first.Kind == inspect.Unknown {
			err = errSilent
		}
		return nil, err
	}
	if r.up == nil {
		if r.up, err = c.dial(ctx, r.to, dec); err != nil {
			return nil, err
		}
	}
	greeting, r.first, err = c.firstWord(ctx, r.up)
	return greeting, err
}

// firstWord returns what the server sends if it is the first to send, or else the first
// bytes of the client.
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
