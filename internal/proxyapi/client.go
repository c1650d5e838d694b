// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"
)

// Client speaks to one sandbox's proxy.
type Client struct {
	socket string
	http   http.Client
}

// Dial makes a client of the control socket; it connects with each request.
func Dial(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, socket) }
	return &Client{socket: socket, http: http.Client{
		Timeout:   RequestTimeout,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 14},
	}}
}

// Status asks how the proxy is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	if _, err := c.do(ctx, http.MethodGet, PathStatus, nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Metrics are the proxy's counters, as Prometheus reads them.
func (c *Client) Metrics(ctx context.Context) (text []byte, err error) {
	_, err = c.do(ctx, http.MethodGet, PathMetrics, nil, &text)
	return text, err
}

// Policies lists the revisions that are kept, oldest first.
func (c *Client) Policies(ctx context.Context) ([]Revision, error) {
	var out []Revision
	_, err := c.do(ctx, http.MethodGet, PathPolicies, nil, &out)
	return out, err
}

// Policy gives the text of a revision, the newest for 0, and its number.
func (c *Client) Policy(ctx context.Context, revision int) (text []byte, n int, err error) {
	path := PathPolicy
	if revision != 0 {
		path += "?" + url.Values{ParamRevision: {strconv.Itoa(revision)}}.Encode()
	}
	header, err := c.do(ctx, http.MethodGet, path, nil, &text)
	if err != nil {
		return nil, 0, err
	}
	if n, err = strconv.Atoi(header.Get(HeaderRevision)); err != nil {
		return nil, 0, fmt.Errorf("%s: the answer has no %s", c.socket, HeaderRevision)
	}
	return text, n, nil
}

// SetPolicy loads a policy; it is enforced, on open connections as well, when
// SetPolicy returns. The error wraps *Failure if the proxy refused.
func (c *Client) SetPolicy(ctx context.Context, name string, text []byte) (revision int, err error) {
	var l Loaded
	_, err = c.do(ctx, http.MethodPost, PathPolicy+"?"+url.Values{ParamName: {shorten(name)}}.Encode(), text, &l)
	return l.Revision, err
}

// Rollback loads the text of an older revision as a new one.
func (c *Client) Rollback(ctx context.Context, to int) (revision int, err error) {
	body, err := Encode(Loaded{to})
	if err != nil {
		return 0, fmt.Errorf("encode rollback: %w", err)
	}
	var l Loaded
	_, err = c.do(ctx, http.MethodPost, PathRollback, body, &l)
	return l.Revision, err
}

// Providers lists what is attached. Preconditions: the client is of the guard's
// socket.
func (c *Client) Providers(ctx context.Context) ([]Attached, error) {
	var out []Attached
	_, err := c.do(ctx, http.MethodGet, PathProviders, nil, &out)
	return out, err
}

// Update gives a provider's new values; they are in use when Update returns. The
// error wraps *Failure if the guard refused.
// Preconditions: the client is of the guard's socket.
func (c *Client) Update(ctx context.Context, u *Update) error {
	return c.put(ctx, PathProvider, u)
}

// Attach gives one more provider; else as Update.
func (c *Client) Attach(ctx context.Context, a *Attachment) error { return c.put(ctx, PathAttach, a) }

// Detach takes a provider's values away; else as Update.
func (c *Client) Detach(ctx context.Context, name string) error {
	return c.put(ctx, PathDetach, Detachment{name})
}

// SetInference gives all routes anew, with their keys; else as Update.
func (c *Client) SetInference(ctx context.Context, i *Inference) error {
	return c.put(ctx, PathInference, i)
}

func (c *Client) put(ctx context.Context, path string, document any) error {
	body, err := Encode(document)
	if err != nil {
		return fmt.Errorf("encode what %s is told: %w", c.socket, err)
	}
	var done Updated
	_, err = c.do(ctx, http.MethodPut, path, body, &done)
	return err
}

// shorten keeps the end of a name that is too long: a path's end says most.
func shorten(name string) string {
	for len(name) > MaxNameLength {
		_, n := utf8.DecodeRuneInString(name)
		name = name[n:]
	}
	return name
}

// do sends one request and reads the answer into out: JSON, or the bytes
// themselves for a *[]byte.
func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request to %s: %w", c.socket, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the sandbox's proxy at %s: %w", c.socket, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	most := int64(MaxAnswer)
	raw, isRaw := out.(*[]byte)
	if isRaw {
		most = MaxText
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", c.socket, err)
	case int64(len(data)) > most:
		return nil, fmt.Errorf("the answer of %s is larger than %d bytes", c.socket, most)
	case resp.StatusCode != http.StatusOK:
		f := &Failure{}
		if err := Decode(bytes.NewReader(data), f); err != nil || f.Code == "" {
			return nil, fmt.Errorf("%s answers %s", c.socket, resp.Status)
		}
		return nil, f
	case isRaw:
		*raw = data
		return resp.Header, nil
	}
	if err := Decode(bytes.NewReader(data), out); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.socket, err)
	}
	return resp.Header, nil
}
