// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"sync"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/memory"
)

// splice forwards bytes in both directions without looking at them, each until its own
// end. up is the connection to the target if there is one, and greeting what was read from
// it.
func (c *connection) splice(ctx context.Context, to target, dec policy.Decision, up net.Conn, greeting []byte, protocol string) {
	if m := c.sandbox.mustSee(to); m != "" {
		c.refuseRaw(to, denied(dec, unseen(m)))
		return
	}
	dec, ok := c.begin(to, dec, false)
	if !ok {
		return
	}
	// The client may have waited before its first bytes, and other processes may hold the
	// connection since.
	if dec = c.stillHeld(to, dec); dec.Verdict != policy.Allow {
		c.refuseRaw(to, dec)
		return
	}
	if c.sandbox.uninspected(to, dec) {
		c.refuseRaw(to, denied(dec, notInspected))
		return
	}
	if up == nil {
		var err error
		if up, err = c.dial(ctx, to, dec); err != nil {
			_, dec = unreachable("", to, dec, err)
			c.record(record{dec: dec, to: to, protocol: protocol, err: err})
			reset(c.client)
			return
		}
		defer up.Close()
	}
	rec := record{to: to, protocol: protocol, steps: c.sandbox.passedOver(to.host)}
	rec.in, rec.out, rec.err = relay(ctx, c.account, c.client, up, greeting)
	rec.err = failure(ctx, rec.err)
	switch {
	case errors.Is(rec.err, errLateRequest):
		dec, rec.err = denied(dec, errLateRequest.Error()), nil
	case rec.err != nil:
		dec.Reason = rec.err.Error()
	}
	rec.dec = dec
	c.record(rec)
}

// stillHeld returns the decision on the processes that hold the connection now.
func (c *connection) stillHeld(to target, dec policy.Decision) policy.Decision {
	before := c.held.Load()
	if err := c.identify(); err != nil {
		return denied(dec, err.Error())
	}
	if c.held.Load() == before {
		return dec
	}
	return c.judge(to, nil)
}

type halfCloser interface{ CloseWrite() error }

// relay copies both ways until both have ended, or one has failed, which ends the
// other as well: what was cut off must not look whole. The error is a *hungUp if it is of
// the client's connection.
func relay(ctx context.Context, account *memory.Account, client, up net.Conn, greeting []byte) (in, out int64, err error) {
	both := func() {
		reset(client)
		reset(up)
	}
	stop := context.AfterFunc(ctx, both)
	defer stop()
	// The first error is the reason; what it ends fails as well.
	var once sync.Once
	fail := func(e error, byClient bool) {
		once.Do(func() {
			if err = e; byClient {
				err = &hungUp{e}
			}
		})
		both()
	}
	sent := make(chan int64, 1)
	go func() {
		n, e := transfer(account, up, client)
		if e != nil {
			fail(e, !ofWriting(e))
		} else {
			closeWrite(up)
		}
		sent <- n
	}()
	n, e := client.Write(greeting)
	in = int64(n)
	if e == nil {
		var m int64
		m, e = transfer(account, client, up)
		in += m
	}
	if e != nil {
		fail(e, ofWriting(e))
	} else {
		closeWrite(client)
	}
	out = <-sent
	return in, out, err
}

// closeWrite passes an end of data on. That the other end has gone already shows
// on the other way.
func closeWrite(conn net.Conn) {
	if h, ok := conn.(halfCloser); ok {
		_ = h.CloseWrite()
	}
}

// reset ends a connection such that its other end sees an error.
func reset(conn net.Conn) {
	for {
		t, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = t.NetConn() // under TLS
	}
	if t, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}
