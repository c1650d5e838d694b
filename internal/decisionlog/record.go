// SPDX-License-Identifier: Apache-2.0

// Package decisionlog writes and reads the decisions of a sandbox's proxy, as one line of
// JSON for each. Writing never delays traffic. A line is ASCII, whatever text the workload
// put into a host or a path, so it is a single line and harmless on a terminal. Records
// that could not be kept are counted.
package decisionlog

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Record is one decision. Its strings are as the workload sent them; a program that prints
// them must escape them.
type Record struct {
	Time time.Time `json:"time"`
	// Seq counts from 1 in each run of the proxy. Dropped is the number of records that are
	// missing immediately before this one.
	Seq       uint64 `json:"seq"`
	Container string `json:"container"`
	// Verdict is allow, audit, deny or failed. Layer is dns, l4, l7, inference, or
	// credentials for a change of a provider. Both are empty in a record that only reports
	// missing records.
	Verdict string `json:"verdict"`
	Layer   string `json:"layer"`

	Pid       int      `json:"pid,omitempty"`
	Binary    string   `json:"binary,omitempty"`
	Digest    string   `json:"digest,omitempty"`
	Ancestors []string `json:"ancestors,omitempty"`

	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
	// Address is the address that was dialed, or the one that the policy refused for the
	// host.
	Address string `json:"address,omitempty"`
	// Protocol is tcp, tls, http, https, h2 or dns.
	Protocol string `json:"protocol,omitempty"`
	Method   string `json:"method,omitempty"`
	// Path does not contain the query: queries contain secrets.
	Path string `json:"path,omitempty"`

	// Policy is the key of the policy that decided, Rule the rule or endpoint in it, Line
	// the line of that in the document, and Reason the reason of a refusal.
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Line   int    `json:"line,omitempty"`
	// Model is the model that the request to the backend names. TokensIn and TokensOut are
	// the tokens that the backend counted. FirstByteMS is the time until its response
	// began.
	Model       string  `json:"model,omitempty"`
	TokensIn    int64   `json:"tokens_in,omitempty"`
	TokensOut   int64   `json:"tokens_out,omitempty"`
	FirstByteMS float64 `json:"first_byte_ms,omitempty"`
	// Estimated is true if the token numbers are estimates because the backend did not
	// count.
	Estimated bool `json:"estimated,omitempty"`
	// Credentials are the keys of the credentials that were inserted into the request.
	Credentials []string `json:"credentials,omitempty"`
	// Placeholders are the keys of the placeholders that stayed unchanged in the request's
	// body.
	Placeholders []string `json:"placeholders,omitempty"`
	// Middlewares are the middlewares that processed the request.
	Middlewares []Middleware `json:"middlewares,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Revision    int          `json:"revision,omitempty"`

	// Status is the HTTP status that the client received.
	Status     int     `json:"status,omitempty"`
	BytesIn    int64   `json:"bytes_in,omitempty"`
	BytesOut   int64   `json:"bytes_out,omitempty"`
	DurationMS float64 `json:"duration_ms,omitempty"`

	// Ended is the side that ended the request or the connection early, client or upstream;
	// Reason then contains the error. It is empty if neither did.
	Ended string `json:"ended,omitempty"`

	Dropped uint64 `json:"dropped,omitempty"`

	// Count, if it is not 0, is the number of refusals without a record of their own that
	// this record reports; they were made between First and Last. Each equals an earlier
	// record in all fields that this record has. A record without a host reports refusals
	// of too many kinds, which have Layer and Policy in common.
	Count uint64    `json:"count,omitempty"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

// Middleware reports what one middleware of the policy did with a request.
type Middleware struct {
	Name    string `json:"name"`
	Changed bool   `json:"changed,omitempty"`
	// Failed is the reason why it did nothing.
	Failed   string `json:"failed,omitempty"`
	Findings int    `json:"findings,omitempty"`
}

// clip limits the length of every string, so that the queue is limited in bytes, too.
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
	for i := range r.Middlewares { // the policy's; they are few
		r.Middlewares[i].Name = clip(r.Middlewares[i].Name)
	}
	if len(r.Ancestors) > MaxAncestors {
		r.Ancestors = r.Ancestors[:MaxAncestors]
	}
	if slices.ContainsFunc(r.Ancestors, func(s string) bool { return len(s) > MaxField }) {
		r.Ancestors = slices.Clone(r.Ancestors) // the caller's slice is not changed
		for i, s := range r.Ancestors {
			r.Ancestors[i] = clip(s)
		}
	}
}

// OneLine returns the text of an error on one line. It replaces the line breaks of joined
// errors by semicolons.
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
