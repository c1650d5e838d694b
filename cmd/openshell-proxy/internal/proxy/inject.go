// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"openshell.dev/runtime/cmd/openshell-proxy/internal/credentials"
	"openshell.dev/runtime/policy"
)

// injected is a request as it leaves, with credentials in it.
type injected struct {
	*credentials.Rewritten
	// stopped is why the body was not sent to its end.
	stopped atomic.Pointer[refusedBody]
}

type refusedBody struct{ credentials.Refusal }

// hasCredentials says that requests to the target must be read for the sake of the
// credentials that belong there, whatever policy asks.
func (s *Server) hasCredentials(to target) bool {
	set := s.credentials.Load()
	return set != nil && set.Needed(to.host, to.port)
}

// inject puts credentials where a judged request has placeholders. The request that
// it returns is the one to send; the answer is nil if it may go.
func (c *connection) inject(req *http.Request, j *judged) (*http.Request, *answer) {
	set := c.s.credentials.Load()
	if set == nil {
		return req, nil
	}
	to := credentials.Target{Host: j.to.host, Port: j.to.port, TLSVerified: j.to.tls}
	var body io.Reader
	if req.ContentLength != 0 {
		body = req.Body
	}
	r, err := set.Request(to, credentials.Options{}, j.asked.Path, j.asked.RawQuery, req.Header, req.Header.Get("Content-Type"), req.ContentLength, body)
	if err != nil {
		j.dec = denied(j.dec, err.Error())
		a := refusedCredential(err)
		return nil, &a
	}
	j.injected = &injected{Rewritten: r}
	out := *req
	out.Header, out.ContentLength = r.Header, r.Length
	if body != nil {
		out.Body = struct {
			io.Reader
			io.Closer
		}{&watchedBody{j.injected, r.Body, req}, req.Body}
	}
	return &out, nil
}

// watchedBody keeps the refusal that a body ended with: the sender's error is lost
// on the way to who answers the client.
type watchedBody struct {
	i *injected
	r io.Reader
	// req is the client's, whose trailers are known at the body's end.
	req *http.Request
}

func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if errors.Is(err, io.EOF) {
		if e := w.i.Trailer(w.req.Trailer); e != nil {
			n, err = 0, e // nothing may complete the body
		}
	}
	var refusal credentials.Refusal
	if err != nil && errors.As(err, &refusal) {
		w.i.stopped.Store(&refusedBody{refusal})
	}
	return n, err
}

// refusedCredential is the answer to a request whose credentials may not go.
func refusedCredential(err error) answer {
	var r credentials.Refusal
	if !errors.As(err, &r) {
		return answer{status: http.StatusInternalServerError, body: simpleBody{"credential_injection_failed", err.Error(), ""}}
	}
	return answer{status: r.Status(), body: simpleBody{r.Code(), r.Error(), ""}}
}

// outcome is the answer to a request that was not sent to its end or not answered,
// and the decision to be recorded with it.
func (j *judged) outcome(method string, err error) (answer, policy.Decision) {
	if j.injected != nil {
		if s := j.injected.stopped.Load(); s != nil {
			return refusedCredential(s), denied(j.dec, s.Error())
		}
	}
	return unreachable(method, j.to, j.dec, j.mask(err))
}

// mask takes credentials out of an error's text: an answer that is no HTTP is
// quoted in it.
func (j *judged) mask(err error) error {
	if j.injected == nil {
		return err
	}
	return &maskedError{err, string(j.injected.ResponseText([]byte(err.Error())))}
}

type maskedError struct {
	error
	text string
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.error }

// cutOff is the decision to be recorded with a request that was answered, but not
// to the end, or that was not sent to its end.
func (j *judged) cutOff(dec policy.Decision, err error) policy.Decision {
	if j.injected != nil {
		if s := j.injected.stopped.Load(); s != nil {
			return denied(dec, s.Error())
		}
	}
	if err != nil {
		dec.Reason = j.mask(err).Error()
	}
	return dec
}

// scrub takes credentials that the other side echoes out of its answer.
func (j *judged) scrub(resp *http.Response) {
	i := j.injected
	if i == nil {
		return
	}
	contentType, encoding := resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding")
	i.ResponseHeader(resp.Header)
	if _, ok := resp.Header["Content-Length"]; !ok && resp.ContentLength > 0 {
		resp.ContentLength = -1
	}
	body := i.ResponseBody(contentType, encoding, resp.Body)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{&scrubbedTrailer{i, body, resp}, resp.Body}
}

// scrubbedTrailer scrubs the trailers once they are known, at the body's end.
type scrubbedTrailer struct {
	i    *injected
	r    io.Reader
	resp *http.Response
}

func (s *scrubbedTrailer) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if errors.Is(err, io.EOF) {
		s.i.ResponseHeader(s.resp.Trailer)
	}
	return n, err
}

// keys are the credentials that a request used, for the record.
func (j *judged) keys() []string {
	if j.injected == nil {
		return nil
	}
	return j.injected.Used()
}
