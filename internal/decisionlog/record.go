// SPDX-License-Identifier: Apache-2.0

// Package decisionlog is the record of what a sandbox's proxy decided: one line of
// JSON each, written without ever making traffic wait and read again by the CLI.
// A line is ASCII whatever the workload put into a host or a path, so that it is
// one line and harmless on a terminal. What could not be kept is counted.
package decisionlog

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Record is one decision. Texts are as the workload sent them; whoever prints one
// must escape it.
type Record struct {
	Time time.Time `json:"time"`
	// Seq counts from 1 in each run of the proxy. Records that are missing before
	// this one are as many as Dropped says.
	Seq       uint64 `json:"seq"`
	Container string `json:"container"`
	// Verdict is allow, audit, deny or failed; Layer dns, l4, l7, inference or, for what
	// becomes of a provider, credentials. Both are empty where a
	// record only says that others are missing.
	Verdict string `json:"verdict"`
	Layer   string `json:"layer"`

	Pid       int      `json:"pid,omitempty"`
	Binary    string   `json:"binary,omitempty"`
	Digest    string   `json:"digest,omitempty"`
	Ancestors []string `json:"ancestors,omitempty"`

	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
	// Address is the address that was dialled, or that the policy refused for the host.
	Address string `json:"address,omitempty"`
	// Protocol is tcp, tls, http, https, h2 or dns.
	Protocol string `json:"protocol,omitempty"`
	Method   string `json:"method,omitempty"`
	// Path has no query: queries carry secrets.
	Path string `json:"path,omitempty"`

	// Policy is the key of the policy that decided, Rule what in it, at Line of its
	// document, Reason why not.
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Line   int    `json:"line,omitempty"`
	// Model is what a backend was asked for, TokensIn and TokensOut what it counted,
	// FirstByteMS the time until its answer began.
	Model       string  `json:"model,omitempty"`
	TokensIn    int64   `json:"tokens_in,omitempty"`
	TokensOut   int64   `json:"tokens_out,omitempty"`
	FirstByteMS float64 `json:"first_byte_ms,omitempty"`
	// Estimated says that the tokens are guessed: the backend did not count.
	Estimated bool `json:"estimated,omitempty"`
	// Credentials are the keys of the credentials that were put into the request.
	Credentials []string `json:"credentials,omitempty"`
	// Placeholders are the keys of the placeholders that passed unchanged in the request's body.
	Placeholders []string `json:"placeholders,omitempty"`
	// Middlewares are the middlewares that the request went through.
	Middlewares []Middleware `json:"middlewares,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Revision    int          `json:"revision,omitempty"`

	// Status is the HTTP status that the client got.
	Status     int     `json:"status,omitempty"`
	BytesIn    int64   `json:"bytes_in,omitempty"`
	BytesOut   int64   `json:"bytes_out,omitempty"`
	DurationMS float64 `json:"duration_ms,omitempty"`

	// Ended is the side that ended the request or the connection early, client or upstream.
	// Reason then has the error. Empty if neither did.
	Ended string `json:"ended,omitempty"`

	Dropped uint64 `json:"dropped,omitempty"`

	// Count, if it is not 0, is the number of refusals without a record of their own that
	// this record stands for, made between First and Last. Each was like an earlier
	// record in all fields that this record has. A record without a host stands for
	// refusals of too many kinds, which had Layer and Policy in common.
	Count uint64    `json:"count,omitempty"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

// Middleware is what one of the policy's middlewares did to a request.
type Middleware struct {
	Name    string `json:"name"`
	Changed bool   `json:"changed,omitempty"`
	// Failed is why it did nothing.
	Failed   string `json:"failed,omitempty"`
	Findings int    `json:"findings,omitempty"`
}

// clip bounds every text, so that the queue is bounded in bytes, too.
func (r *Record) clip() {
	r.Reason = OneLine(r.Reason)
	if i := strings.IndexAny(r.Path, "?#"); i >= 0 {
		r.Path = r.Path[:i]
	}
	for _, s := range [...]*string{
		&r.Container, &r.Verdict, &r.Layer, &r.Binary, &r.Digest, &r.Host, &r.Address, &r.Protocol, &r.Method, &r.Path, &r.Policy, &r.Rule, &r.Reason, &r.Ended,
	} {
		*s = clip(*s)
	}
	for i := range r.Middlewares { // the policy's own, and few
		r.Middlewares[i].Name = clip(r.Middlewares[i].Name)
	}
	if len(r.Ancestors) > MaxAncestors {
		r.Ancestors = r.Ancestors[:MaxAncestors]
	}
	if slices.ContainsFunc(r.Ancestors, func(s string) bool { return len(s) > MaxField }) {
		r.Ancestors = slices.Clone(r.Ancestors) // the caller's stay as they are
		for i, s := range r.Ancestors {
			r.Ancestors[i] = clip(s)
		}
	}
}

// OneLine returns the text of an error in one line. Joined errors have a line each, which it
// separates by semicolons.
func OneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	var b strings.Builder
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		switch before := b.String(); {
		case line == "":
			continue
		case strings.HasSuffix(before, ":"): // a heading of the lines after it
			b.WriteByte(' ')
		case before != "":
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return strings.ReplaceAll(b.String(), "\r", " ")
}

func clip(s string) string {
	if len(s) <= MaxField {
		return s
	}
	const mark = "…"
	end := MaxField - len(mark)
	for end > MaxField-len(mark)-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark // a copy: s may hold on to much more
}
