// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// failure is an answer of the router's own.
type failure struct {
	status  int
	message string
	retry   time.Duration // sent as Retry-After, if set
	spent   bool          // a budget that does not refill: to retry is of no use
	detail  string        // for the record alone
}

func (f *failure) Error() string {
	if f.detail != "" {
		return f.message + ": " + f.detail
	}
	return f.message
}

func bad(err error) *failure {
	return &failure{status: http.StatusBadRequest, message: err.Error()}
}

// kinds are the words that each dialect has for a status.
var kinds = map[int]struct{ openAI, anthropic, gemini, bedrock string }{
	400: {"invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException"},
	401: {"authentication_error", "authentication_error", "UNAUTHENTICATED", "AccessDeniedException"},
	403: {"permission_error", "permission_error", "PERMISSION_DENIED", "AccessDeniedException"},
	413: {"invalid_request_error", "request_too_large", "INVALID_ARGUMENT", "ValidationException"},
	429: {"rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException"},
	503: {"server_error", "api_error", "UNAVAILABLE", "ServiceUnavailableException"},
}

// internal is for every other status.
var internal = struct{ openAI, anthropic, gemini, bedrock string }{"server_error", "api_error", "INTERNAL", "InternalServerException"}

type openAIError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// answer is f in a dialect's own words.
func (f *failure) answer(d Dialect) (body []byte, header http.Header) {
	header = http.Header{"Content-Type": {"application/json"}}
	if f.retry > 0 {
		header.Set("Retry-After", strconv.FormatInt(int64((f.retry+time.Second-1)/time.Second), 10))
	}
	if f.spent {
		header.Set("X-Should-Retry", "false")
	}
	words, ok := kinds[f.status]
	if !ok {
		words = internal
	}
	switch d {
	case OpenAI:
		e := openAIError{Message: f.message, Type: words.openAI}
		if f.status == http.StatusTooManyRequests {
			code := "rate_limit_exceeded"
			if f.spent {
				code = "insufficient_quota"
			}
			e.Code = &code
		}
		return marshal(map[string]any{"error": e}), header
	case Anthropic:
		return anthropicError(words.anthropic, f.message), header
	case Gemini:
		return geminiError(f.status, f.message, words.gemini), header
	case Bedrock:
		header.Set("X-Amzn-Errortype", words.bedrock)
		return bedrockError(f.message), header
	case Ollama:
		return ollamaError(f.message), header
	default: // no caller's
		return marshal(map[string]string{"error": f.message}), header
	}
}

func anthropicError(kind, message string) []byte {
	return marshal(map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": message}})
}

func geminiError(code int, message, status string) []byte {
	return marshal(map[string]any{"error": map[string]any{"code": code, "message": message, "status": status}})
}

func bedrockError(message string) []byte { return marshal(map[string]string{"message": message}) }
func ollamaError(message string) []byte  { return marshal(map[string]string{"error": message}) }

// errorEvent is an error within a dialect's server-sent events.
func errorEvent(d Dialect, e ending, message string) []byte {
	switch {
	case d == Anthropic:
		return fmt.Appendf(nil, "event: error\ndata: %s\n\n", anthropicError("api_error", message))
	case d == Gemini:
		return fmt.Appendf(nil, "data: %s\n\n", geminiError(http.StatusBadGateway, message, "INTERNAL"))
	case e == endResponse:
		return fmt.Appendf(nil, "event: error\ndata: %s\n\n",
			marshal(map[string]any{"type": "error", "code": "server_error", "message": message, "param": nil}))
	}
	return fmt.Appendf(nil, "data: %s\n\n", marshal(map[string]any{"error": openAIError{Message: message, Type: "server_error"}}))
}

// marshal cannot fail: it is given strings and numbers.
func marshal(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		return []byte(`{}`)
	}
	return out
}
