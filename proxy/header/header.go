// SPDX-License-Identifier: Apache-2.0

// Package header names the header fields that have a meaning beyond one program: the fields
// of a single connection and the fields that carry credentials.
package header

import (
	"net/http"
	"net/textproto"
	"strings"
)

// HopByHop are the fields of one connection, not of the message (RFC 9110, section 7.6.1),
// which are not forwarded. The fields that Connection names are others ([Nominated]).
var HopByHop = [...]string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// Credentials are the request fields from which APIs take credentials, without cookies.
var Credentials = [...]string{
	"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "X-Auth-Token",
	"X-Access-Token", "Private-Token", "Job-Token", "Deploy-Token", "X-Amz-Security-Token", "X-Goog-Iam-Authorization-Token",
	"X-Forwarded-Access-Token", "X-Forwarded-Authorization", "Anthropic-Api-Key", "Openai-Api-Key",
}

// Nominated returns the names in h's Connection, in the spelling of [http.Header]: they are
// hop-by-hop, too, and include options such as close.
func Nominated(h http.Header) []string {
	var out []string
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			out = append(out, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	return out
}
