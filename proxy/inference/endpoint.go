// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"net/url"
	"strings"
)

// ending is what tells that an answer of an endpoint is whole.
type ending int

const (
	endNone     ending = iota
	endSentinel        // data: [DONE]
	endResponse        // response.completed and its like
	endMessage         // message_stop
	endFinish          // a finishReason
	endDone            // "done": true
	endMetrics         // amazon-bedrock-invocationMetrics
	endConverse        // metadata, after messageStop
)

// endpoint is one (method, path) that callers may ask for.
type endpoint struct {
	method  string
	pattern string // {model} stands for one segment, or the part before a colon
	dialect Dialect
	ending  ending
	stream  bool // its answer is always streamed
	// text: it writes, so that an answer without usage is charged by a guess.
	text bool
}

const modelPart = "{model}"

// endpoints is the allow-list. Everything else is refused.
var endpoints = []endpoint{
	{method: "POST", pattern: "/v1/chat/completions", dialect: OpenAI, ending: endSentinel, text: true},
	{method: "POST", pattern: "/v1/completions", dialect: OpenAI, ending: endSentinel, text: true},
	{method: "POST", pattern: "/v1/responses", dialect: OpenAI, ending: endResponse, text: true},
	{method: "POST", pattern: "/v1/embeddings", dialect: OpenAI},
	{method: "GET", pattern: "/v1/models", dialect: OpenAI},
	{method: "GET", pattern: "/v1/models/{model}", dialect: OpenAI},

	{method: "POST", pattern: "/v1/messages", dialect: Anthropic, ending: endMessage, text: true},
	{method: "POST", pattern: countTokens, dialect: Anthropic},

	{method: "POST", pattern: "/model/{model}/invoke", dialect: Bedrock, text: true},
	{method: "POST", pattern: "/model/{model}/invoke-with-response-stream", dialect: Bedrock, ending: endMetrics, stream: true, text: true},
	{method: "POST", pattern: "/model/{model}/converse", dialect: Bedrock, text: true},
	{method: "POST", pattern: "/model/{model}/converse-stream", dialect: Bedrock, ending: endConverse, stream: true, text: true},

	{method: "POST", pattern: "/v1beta/models/{model}:generateContent", dialect: Gemini, text: true},
	{method: "POST", pattern: "/v1beta/models/{model}:streamGenerateContent", dialect: Gemini, ending: endFinish, stream: true, text: true},
	{method: "POST", pattern: "/v1beta/models/{model}:countTokens", dialect: Gemini},
	{method: "POST", pattern: "/v1/models/{model}:generateContent", dialect: Gemini, text: true},
	{method: "POST", pattern: "/v1/models/{model}:streamGenerateContent", dialect: Gemini, ending: endFinish, stream: true, text: true},
	{method: "POST", pattern: "/v1/models/{model}:countTokens", dialect: Gemini},

	{method: "POST", pattern: "/api/chat", dialect: Ollama, ending: endDone, text: true},
	{method: "POST", pattern: "/api/generate", dialect: Ollama, ending: endDone, text: true},
	{method: "POST", pattern: "/api/embed", dialect: Ollama},
	{method: "POST", pattern: "/api/embeddings", dialect: Ollama},
	{method: "GET", pattern: "/api/tags", dialect: Ollama},
	{method: "POST", pattern: "/api/show", dialect: Ollama},
	{method: "GET", pattern: "/api/version", dialect: Ollama},
}

const countTokens = "/v1/messages/count_tokens"

// call is a request that the allow-list has.
type call struct {
	*endpoint
	dialect Dialect // the caller's
	path    string  // as asked for
	model   string  // of the path, decoded; empty if the body has it
	query   url.Values
}

// modelInPath reports whether the path says which model.
func (c *call) modelInPath() bool { return strings.Contains(c.pattern, modelPart) }

// modelInBody reports whether the body says which model.
func (c *call) modelInBody() bool { return c.method == http.MethodPost && !c.modelInPath() }

// match finds what is asked for on the allow-list. The path is the one of the
// request line: it is compared byte by byte, so that no second spelling of a path
// passes, and none of it but a model's name reaches a backend.
func match(method, path string) (*endpoint, string, bool) {
	for i := range endpoints {
		e := &endpoints[i]
		if e.method != method {
			continue
		}
		if model, ok := e.matchPath(path); ok {
			return e, model, true
		}
	}
	return nil, "", false
}

func (e *endpoint) matchPath(path string) (model string, ok bool) {
	before, after, has := strings.Cut(e.pattern, modelPart)
	if !has {
		return "", path == e.pattern
	}
	if len(path) <= len(before)+len(after) || !strings.HasPrefix(path, before) || !strings.HasSuffix(path, after) {
		return "", false
	}
	model = path[len(before) : len(path)-len(after)]
	if e.dialect != Gemini {
		// The AWS SDKs escape the colon of a model's version.
		model = strings.NewReplacer("%3A", ":", "%3a", ":").Replace(model)
	} else if strings.Contains(model, ":") {
		return "", false
	}
	return model, validSegment(model)
}

// validSegment reports whether a model's name can stand in a path as it is.
func validSegment(s string) bool {
	if len(s) > MaxModel || !alphanumeric(s[0]) {
		return false
	}
	for _, c := range []byte(s) {
		if !alphanumeric(c) && !strings.ContainsRune("-._:@+", rune(c)) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// knownPath reports whether pattern is one of a dialect's.
func knownPath(d Dialect, pattern string) bool {
	for _, e := range endpoints {
		if e.dialect == d && e.pattern == pattern {
			return true
		}
	}
	return d == Anthropic && (pattern == "/v1/models" || pattern == "/v1/models/{model}")
}

// queries is what each dialect's callers may ask by query; the rest is stripped,
// credentials with it.
var queries = map[Dialect][]string{
	Anthropic: {"beta", "after_id", "before_id", "limit"},
	Gemini:    {"alt"},
}

// readCall finds the call that a request is.
func readCall(req *http.Request) (*call, bool) {
	path, rawQuery, _ := strings.Cut(req.RequestURI, "?")
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := strings.CutPrefix(path, scheme); ok { // absolute-form; its authority is req.Host
			_, rest, _ = strings.Cut(rest, "/")
			path = "/" + rest
		}
	}
	e, model, ok := match(req.Method, path)
	if !ok {
		return nil, false
	}
	c := &call{endpoint: e, dialect: e.dialect, path: path, model: model, query: url.Values{}}
	if e.method == http.MethodGet && e.dialect == OpenAI && req.Header.Get("Anthropic-Version") != "" {
		c.dialect = Anthropic // both have /v1/models
	}
	asked, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, false
	}
	for _, k := range queries[c.dialect] {
		if v := asked[k]; len(v) == 1 {
			c.query.Set(k, v[0])
		}
	}
	return c, true
}

// target is where r's backend takes a call.
func (r *route) target(c *call, model string, stream bool) (*url.URL, error) {
	u := *r.BaseURL
	base := strings.TrimRight(u.EscapedPath(), "/")
	path := strings.Replace(c.pattern, modelPart, url.PathEscape(model), 1)
	switch {
	case r.Dialect == VertexClaude:
		switch {
		case c.pattern == countTokens:
			path = "/count-tokens:rawPredict"
		case stream:
			path = "/" + url.PathEscape(model) + ":streamRawPredict"
		default:
			path = "/" + url.PathEscape(model) + ":rawPredict"
		}
	case r.caller == OpenAI && base != "":
		path = strings.TrimPrefix(path, "/v1")
	case r.caller == Bedrock:
		path = strings.ReplaceAll(path, ":", "%3A") // as the AWS SDKs sign it
	default:
		version, rest, _ := strings.Cut(path[1:], "/")
		if last := base[strings.LastIndexByte(base, '/')+1:]; last == version || (r.caller == Gemini && strings.HasPrefix(last, "v1")) {
			path = "/" + rest
		}
	}
	var err error
	u.RawPath = base + path
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		return nil, err
	}
	query := u.Query()
	for k, v := range c.query {
		query[k] = v
	}
	u.RawQuery = query.Encode()
	return &u, nil
}
