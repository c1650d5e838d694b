// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
)

// injected is a request as it leaves, with credentials in it.
type injected struct {
	*credentials.Rewritten
	// stopped is why the body was not sent to its end.
	stopped atomic.Pointer[refusedBody]
	// dropped is true if a field of the answer was left out because its name held a value.
	dropped bool
}

type refusedBody struct{ credentials.Refusal }

func (r *refusedBody) Unwrap() error { return r.Refusal }

// keys are the sandbox's credentials; nil if it has none.
func (s *Sandbox) keys() *credentials.Set { return s.credentials.Load() }

// lost says whether the sandbox has lost a provider where a request went since the
// request began.
func (s *Sandbox) lost(j *request) bool {
	set := s.keys()
	return set != nil && set.Lost(j.set, credentials.Target{Host: j.to.host, Port: j.to.port})
}

// hasCredentials says that requests to the target must be read for the sake of the
// credentials that belong there, whatever policy asks.
func (s *Sandbox) hasCredentials(to target, dec policy.Decision) bool {
	set := s.keys()
	return dec.Credentials.Provider != "" || set != nil && set.Needed(credentials.Target{Host: to.host, Port: to.port})
}

// uninspected says that bytes which nobody looks at may not go to the target.
func (s *Sandbox) uninspected(to target, dec policy.Decision) bool {
	return !dec.Credentials.AllowUninspected && s.hasCredentials(to, dec)
}

// notInspected is OpenShell's text.
const notInspected = "credentialed endpoint requires L7 inspection; raw tunnel is not explicitly allowed"

// options are what a decision says about credentials.
func options(p *policy.Credentials) credentials.Options {
	return credentials.Options{
		BodyRewrite: p.BodyRewrite, MessageRewrite: p.MessageRewrite, AllowUninspected: p.AllowUninspected, AllowUnsearched: p.AllowUnsearched,
		Signed: p.Signing != policy.SigningNone,
	}
}

// inject puts credentials where a judged request has placeholders, and signs it
// where the policy says so. The request that it returns is the one to send; the
// answer is nil if it may go. A client that waits to be told to send its body is
// told on interim, if that must be read first.
func (c *connection) inject(req *http.Request, j *request, interim io.Writer) (*http.Request, *answer) {
	set, says := c.sandbox.keys(), j.dec.Credentials
	j.set = set
	if set == nil {
		says.AllowUninspected, says.AllowUnsearched = false, false
		if says == (policy.Credentials{}) {
			return req, nil
		}
		set = &credentials.Set{} // which has none of what the policy asks for
	}
	to := credentials.Target{Host: j.to.host, Port: j.to.port, TLSVerified: j.to.tls, Provider: says.Provider}
	var body io.Reader
	if req.ContentLength != 0 {
		body = req.Body
	}
	early := &expected{Reader: body}
	if body != nil && interim != nil && strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		early.interim, body = interim, early
	}
	o := options(&says)
	o.Hold, o.Method, o.NoValues = j.hold, req.Method, noValues(req.Method, j)
	r, err := set.Request(to, o, j.asked.Path, j.asked.RawQuery, req.Header, req.Header.Get("Content-Type"), req.ContentLength, body)
	if err == nil {
		j.injected = &injected{Rewritten: r}
		if says.Signing != policy.SigningNone && o.NoValues == "" {
			err = r.Sign(req.Method, j.to.header(), credentials.Signing{Mode: credentials.SigningMode(says.Signing), Service: says.Service, Region: says.Region}, time.Now())
		}
	}
	if err != nil {
		j.dec = denied(j.dec, err.Error())
		a := refusedCredential(err)
		return nil, &a
	}
	out := *req
	out.Header, out.ContentLength = r.Header, r.Length
	if early.told {
		delete(out.Header, "Expect") // has been met
	}
	early.interim = nil // from now on the other side tells
	if body != nil {
		if r.Length == 0 {
			out.Header["Content-Length"] = []string{"0"} // which was not known before
		}
		out.Body = struct {
			io.Reader
			io.Closer
		}{&watchedBody{j.injected, r.Body, req}, req.Body}
	}
	return &out, nil
}

// noValues returns the reason why a request gets no credentials, "" if it gets them: the
// answer to TRACE is the request itself, and the answer to OPTIONS needs no credential. A
// method that overrides the request's counts as well.
func noValues(method string, j *request) string {
	for _, o := range append([]policy.Override{{Method: method}}, j.asked.Overrides...) {
		switch {
		case strings.EqualFold(o.Method, http.MethodTrace):
			return "no credential is put into a TRACE request"
		case strings.EqualFold(o.Method, http.MethodOptions) && !j.dec.OptionsNamed:
			return "a credential is put into an OPTIONS request only where a rule names that method"
		}
	}
	return ""
}

// expected is the body of a request that expects to be told to send it.
type expected struct {
	io.Reader
	interim io.Writer
	told    bool
}

func (e *expected) Read(p []byte) (int, error) {
	if e.interim != nil && !e.told {
		e.told = true
		if _, err := io.WriteString(e.interim, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return 0, err
		}
	}
	return e.Reader.Read(p)
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
	var inBody *credentials.BodyError
	if errors.As(err, &inBody) {
		return answer{status: r.Status(), body: nestedBody{nestedError{r.Code(), inBody.Reason(), r.Error()}}}
	}
	return answer{status: r.Status(), body: simpleBody{r.Code(), r.Error(), ""}}
}

// outcome is the answer to a request that was not sent to its end or not answered,
// and the decision to be recorded with it.
func (j *request) outcome(method string, err error) (answer, policy.Decision) {
	if j.injected != nil {
		if s := j.injected.stopped.Load(); s != nil {
			return refusedCredential(s), denied(j.dec, s.Error())
		}
	}
	var refusal credentials.Refusal
	if errors.As(err, &refusal) {
		return refusedCredential(refusal), denied(j.dec, refusal.Error())
	}
	return unreachable(method, j.to, j.dec, j.mask(err))
}

// mask takes credentials out of an error's text: an answer that is no HTTP is
// quoted in it.
func (j *request) mask(err error) error {
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
func (j *request) cutOff(dec policy.Decision, err error) policy.Decision {
	if j.injected != nil {
		if s := j.injected.stopped.Load(); s != nil {
			return denied(dec, s.Error())
		}
	}
	var refusal credentials.Refusal
	switch {
	case errors.As(err, &refusal):
		return denied(dec, refusal.Error())
	case err != nil:
		dec.Reason = j.mask(err).Error()
	case j.injected != nil && j.injected.dropped:
		dec.Reason = "a field of the answer was left out: its name holds a credential"
	}
	return dec
}

// scrub masks the credentials that an answer echoes. After an error nothing of the
// answer may pass.
func (j *request) scrub(resp *http.Response) error {
	i := j.injected
	if i == nil {
		return nil
	}
	i.scrubHeader(resp.Header)
	i.scrubHeader(resp.Trailer) // the names, which the header announces
	body, err := i.ResponseBody(resp.StatusCode, resp.Header, resp.Body)
	if err != nil {
		return errors.Join(err, resp.Body.Close())
	}
	resp.Body = &scrubbedTrailer{body, i, resp}
	return nil
}

func (i *injected) scrubHeader(h http.Header) {
	if i.ResponseHeader(h) {
		i.dropped = true
	}
}

// scrubbedTrailer scrubs the trailers once they are known, at the body's end.
type scrubbedTrailer struct {
	io.ReadCloser
	i    *injected
	resp *http.Response
}

func (s *scrubbedTrailer) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		s.i.scrubHeader(s.resp.Trailer)
	}
	return n, err
}
