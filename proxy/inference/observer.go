// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/base64"
	"strconv"
)

// observer takes from an answer what it says of its tokens and of its end.
type observer struct {
	ending ending
	tokens tokens
	// ended: what was read says that the answer is whole.
	ended bool
	// parts counts the parts of a stream, for an answer that says nothing of tokens.
	parts int64

	inner *walker // of what Bedrock wraps in base64
	rest  []byte
	plain []byte
}

// tokens are what an answer says that it cost. Answers say it more than once, and
// the last is the sum, so the largest of each counts.
type tokens struct {
	known                                  bool
	in, out, cacheRead, cacheMade, thought int64
}

func (t *tokens) total() (in, out int64) { return t.in + t.cacheRead + t.cacheMade, t.out + t.thought }

func newObserver(e ending) *observer {
	o := &observer{ending: e}
	if e == endMetrics {
		o.inner, o.plain = &walker{scalar: o.scalar}, make([]byte, wrappedPart)
	}
	return o
}

// walker reads one document of the answer after the other.
func (o *observer) walker() *walker {
	w := &walker{scalar: o.scalar}
	if o.inner != nil {
		w.part = o.wrapped
	}
	return w
}

func (o *observer) scalar(path, value []byte) {
	path = bytes.TrimPrefix(path, []byte("[]."))
	if o.ends(path, value) {
		o.ended = true
	}
	var to *int64
	switch string(path) {
	case "usage.prompt_tokens", "usage.input_tokens", "usage.inputTokens", "response.usage.input_tokens",
		"message.usage.input_tokens", "usageMetadata.promptTokenCount", "prompt_eval_count",
		"amazon-bedrock-invocationMetrics.inputTokenCount":
		to = &o.tokens.in
	case "usage.completion_tokens", "usage.output_tokens", "usage.outputTokens", "response.usage.output_tokens",
		"message.usage.output_tokens", "usageMetadata.candidatesTokenCount", "eval_count",
		"amazon-bedrock-invocationMetrics.outputTokenCount":
		to = &o.tokens.out
	case "usageMetadata.thoughtsTokenCount":
		to = &o.tokens.thought
	case "usage.cache_read_input_tokens", "message.usage.cache_read_input_tokens":
		to = &o.tokens.cacheRead
	case "usage.cache_creation_input_tokens", "message.usage.cache_creation_input_tokens":
		to = &o.tokens.cacheMade
	default:
		return
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 || n > maxTokens {
		return
	}
	o.tokens.known = true
	*to = max(*to, n)
}

// maxTokens is more than any answer costs; a number beyond is not believed.
const maxTokens = 1 << 32

// ends reports whether a scalar of the answer says that it is whole, or tells of its
// own failure.
func (o *observer) ends(path, value []byte) bool {
	switch string(path) {
	case "error", "error.message", "error.code", "error.type":
		return len(value) > 0 && string(value) != "null"
	}
	v := string(value)
	switch o.ending {
	case endResponse:
		return string(path) == "type" && (v == "response.completed" || v == "response.failed" ||
			v == "response.incomplete" || v == "response.cancelled" || v == "error")
	case endMessage:
		return string(path) == "type" && v == "message_stop"
	case endFinish:
		return (string(path) == "candidates[].finishReason" || string(path) == "promptFeedback.blockReason") && v != "null"
	case endDone:
		return string(path) == "done" && v == "true"
	case endMetrics:
		return bytes.HasPrefix(path, []byte("amazon-bedrock-invocationMetrics."))
	default: // what has no end of its own, or one that is no value
	}
	return false
}

// wrapped reads the base64 that a frame of Bedrock's has in "bytes".
func (o *observer) wrapped(path, part []byte) {
	if string(path) != "bytes" {
		return
	}
	for len(part) > 0 {
		n := min(len(part), wrappedPart-len(o.rest))
		o.rest, part = append(o.rest, part[:n]...), part[n:]
		whole := len(o.rest) &^ 3
		k, _ := base64.StdEncoding.Decode(o.plain, o.rest[:whole])
		o.inner.feed(o.plain[:k])
		o.rest = append(o.rest[:0], o.rest[whole:]...)
	}
}

// wrappedPart is how much base64 is decoded at a time.
const wrappedPart = 1024

// nextDocument begins another document of the answer.
func (o *observer) nextDocument(w *walker) {
	w.reset()
	if o.inner != nil {
		o.inner.reset()
		o.rest = o.rest[:0]
	}
}
