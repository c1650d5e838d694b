// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// largeBuffers are lent to streams whose parts are large.
var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// relay passes a stream on as it comes, each part at once. It ends well only where
// the dialect says that the answer is whole.
func (x *exchange) relay(a *answer) *failure {
	defer func() { _ = x.rc.SetWriteDeadline(time.Time{}) }()
	a.resp.Header.Del("Content-Length")
	x.w.WriteHeader(http.StatusOK)
	if err := x.rc.Flush(); err != nil {
		return x.gone()
	}
	buf := make([]byte, smallBuffer)
	for {
		a.timer.Reset(a.rt.IdleTimeout)
		n, rerr := a.resp.Body.Read(buf)
		a.timer.Stop()
		if n > 0 {
			if !x.write(a, buf[:n]) {
				return x.gone()
			}
			a.stream.feed(buf[:n])
		}
		if n == smallBuffer && len(buf) == smallBuffer {
			large := largeBuffers.Get().(*[]byte)
			defer largeBuffers.Put(large)
			buf = *large
		}
		switch {
		case x.usage.BytesOut > MaxStream:
			return x.cutOff(a, "the answer is larger than 32 MiB")
		case rerr == nil:
		case a.stream.whole():
			return nil
		case x.req.Context().Err() != nil:
			return x.gone()
		case errors.Is(context.Cause(a.ctx), errLate):
			return x.cutOff(a, "the backend stopped answering")
		case errors.Is(rerr, io.EOF):
			return x.cutOff(a, "the backend ended its answer before it was whole")
		default:
			return x.cutOff(a, "the connection to the backend broke")
		}
	}
}

// write sends one part to the caller, who has a time to take it.
func (x *exchange) write(a *answer, p []byte) bool {
	_ = x.rc.SetWriteDeadline(time.Now().Add(a.rt.IdleTimeout))
	if x.usage.BytesOut == 0 {
		x.usage.FirstByte = x.r.now().Sub(x.usage.Began)
	}
	n, err := x.w.Write(p)
	x.usage.BytesOut += int64(n)
	return err == nil && x.rc.Flush() == nil
}

// cutOff tells the caller, in its dialect, that no more comes, and has the stream
// broken off after that.
func (x *exchange) cutOff(a *answer, why string) *failure {
	x.cut = true
	x.usage.Error = why
	if event := a.stream.cut("the answer was cut off: " + why); event != nil {
		x.write(a, event)
	}
	return nil
}

// gone records that the caller went away: its connection is broken off as well, if
// it is still there.
func (x *exchange) gone() *failure {
	x.cut = true
	return errGone
}
