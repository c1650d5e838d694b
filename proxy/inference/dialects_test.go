// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
)

const sseType = "text/event-stream; charset=utf-8"

// Answers as the real APIs send them, with tool calls.
var (
	chatParts = []string{
		`data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}` + "\n\n",
		`data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"edit","arguments":""}}]},"finish_reason":null}],"usage":null}` + "\n\n",
		`data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"usage\":{\"prompt_tokens\":9999}}"}}]},"finish_reason":null}],"usage":null}` + "\n\n",
		`data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":null}` + "\n\n",
		`data: {"id":"c1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}` + "\n\n",
		"data: [DONE]\n\n",
	}
	responsesParts = []string{
		"event: response.created\n" + `data: {"type":"response.created","sequence_number":0,"response":{"id":"r1","status":"in_progress","error":null,"usage":null}}` + "\n\n",
		"event: response.function_call_arguments.delta\n" + `data: {"type":"response.function_call_arguments.delta","item_id":"f1","output_index":0,"delta":"{\"path\":"}` + "\n\n",
		"event: response.completed\n" + `data: {"type":"response.completed","response":{"id":"r1","status":"completed","output":[{"type":"function_call","name":"edit","arguments":"{}"}],"usage":{"input_tokens":21,"input_tokens_details":{"cached_tokens":5},"output_tokens":4,"total_tokens":25}}}` + "\n\n",
	}
	messageParts = []string{
		"event: message_start\n" + `data: {"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"output_tokens":1}}}` + "\n\n",
		"event: ping\n" + `data: {"type":"ping"}` + "\n\n",
		"event: content_block_start\n" + `data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"edit","input":{}}}` + "\n\n",
		"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"type\":\"message_stop\"}"}}` + "\n\n",
		"event: content_block_stop\n" + `data: {"type":"content_block_stop","index":0}` + "\n\n",
		"event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}` + "\n\n",
		"event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n",
	}
	geminiParts = []string{
		`data: {"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":6,"totalTokenCount":6}}` + "\r\n\r\n",
		`data: {"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"edit","args":{"finishReason":"x"}}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":6,"candidatesTokenCount":3,"thoughtsTokenCount":2}}` + "\r\n\r\n",
	}
	geminiArray = []string{
		`[{"candidates":[{"content":{"parts":[{"text":"a]"}]}}]}`, "\n,\r\n",
		`{"candidates":[{"content":{"parts":[]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":6,"candidatesTokenCount":3}}`, "\n]\n",
	}
	ollamaParts = []string{
		`{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"edit","arguments":{"done":true}}}]},"done":false}` + "\n",
		`{"model":"m","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"prompt_eval_count":8,"eval_count":5}` + "\n",
	}
	invokeParts = []string{
		invokeFrame(`{"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":1}}}`),
		invokeFrame(`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":13,"outputTokenCount":9,"invocationLatency":500}}`),
	}
	converseParts = []string{
		eventFrame("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}`),
		eventFrame("messageStop", `{"stopReason":"tool_use"}`),
		eventFrame("metadata", `{"usage":{"inputTokens":4,"outputTokens":2,"totalTokens":6},"metrics":{"latencyMs":5}}`),
	}
)

const framesType = "application/vnd.amazon.eventstream"

func invokeFrame(payload string) string {
	return eventFrame("chunk", `{"bytes":"`+base64.StdEncoding.EncodeToString([]byte(payload))+`","p":"abcdefghijkl"}`)
}

func eventFrame(event, payload string) string {
	return string(frame(map[string]string{":event-type": event, ":content-type": "application/json", ":message-type": "event"}, []byte(payload)))
}

// streams has one streamed call of each dialect.
var streams = []struct {
	name       string
	dialect    Dialect
	path, body string
	kind       string
	parts      []string
	in, out    int64
	backend    string // what the backend is asked for
	sent       string
}{
	{"chat", OpenAI, "/v1/chat/completions", `{"model":"gpt","stream":true}`, sseType, chatParts, 11, 7, "/v1/chat/completions", `{"model":"real","stream":true}`},
	{"nvidia", NVIDIA, "/v1/chat/completions", `{"model":"gpt","stream":true}`, sseType, chatParts, 11, 7, "/v1/chat/completions", `{"model":"real","stream":true}`},
	{"responses", OpenAI, "/v1/responses", `{"stream":true, "model" : "gpt" }`, sseType, responsesParts, 21, 4, "/v1/responses", `{"stream":true, "model" : "real" }`},
	{"messages", Anthropic, "/v1/messages?beta=true&api_key=" + theirs, `{"stream":true,"max_tokens":9}`, sseType, messageParts, 15, 15, "/v1/messages?beta=true", `{"model":"real","stream":true,"max_tokens":9}`},
	{"vertex", VertexClaude, "/v1/messages", `{"model":"c","stream":true , "context_management":{"a":[]},"x":1}`, sseType, messageParts, 15, 15, "/real:streamRawPredict", `{"anthropic_version":"vertex-2023-10-16","stream":true,"x":1}`},
	{"gemini", Gemini, "/v1beta/models/g:streamGenerateContent?alt=sse&key=" + theirs, `{"contents":[]}`, sseType, geminiParts, 6, 5, "/v1beta/models/real:streamGenerateContent?alt=sse", `{"contents":[]}`},
	{"gemini array", Gemini, "/v1/models/g:streamGenerateContent", `{"contents":[]}`, "application/json", geminiArray, 6, 3, "/v1/models/real:streamGenerateContent", `{"contents":[]}`},
	{"ollama", Ollama, "/api/chat", `{"model":"m"}`, "application/x-ndjson", ollamaParts, 8, 5, "/api/chat", `{"model":"real"}`},
	{"bedrock invoke", Bedrock, "/model/anthropic.claude-v2%3A0/invoke-with-response-stream", `{"max_tokens":1}`, framesType, invokeParts, 13, 9, "/model/real/invoke-with-response-stream", `{"max_tokens":1}`},
	{"bedrock converse", Bedrock, "/model/a.b:0/converse-stream", `{"messages":[]}`, framesType, converseParts, 4, 2, "/model/real/converse-stream", `{"messages":[]}`},
}

func TestStreamsPassByteExact(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t, streaming(tt.kind, tt.parts...))
			rt := b.route(t, tt.dialect)
			rt.Model = "real"
			s := serve(t, Config{Routes: []Route{rt}})
			status, body := s.ask(t, "POST", tt.path, tt.body)
			if want := strings.Join(tt.parts, ""); status != 200 || body != want {
				t.Fatalf("got %d %q, want %q", status, body, want)
			}
			got := b.last(t)
			if got.uri != tt.backend || got.body != tt.sent {
				t.Errorf("backend got %s %s, want %s %s", got.uri, got.body, tt.backend, tt.sent)
			}
			if a := got.header.Get("Authorization"); a != "Bearer "+key {
				t.Errorf("Authorization is %q", a)
			}
			u := s.record(t, 1)
			if u.TokensIn != tt.in || u.TokensOut != tt.out || u.Estimated || u.Error != "" || u.Status != 200 || u.ModelUsed != "real" || !u.Stream {
				t.Errorf("record %+v, want %d and %d tokens", u, tt.in, tt.out)
			}
		})
	}
}

// A stream that stops at any part but the last must not look whole, whether the
// backend's connection breaks or its answer ends in good form.
func TestCutStreamIsAnErrorAndABreak(t *testing.T) {
	for _, tt := range streams {
		for _, how := range []string{"breaks", "ends", "breaks within a part"} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				all := strings.Join(tt.parts[:len(tt.parts)-1], "")
				if how == "breaks within a part" {
					last := tt.parts[len(tt.parts)-1]
					all += last[:len(last)/2]
				}
				b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
					streaming(tt.kind, all)(w, req)
					if how != "ends" {
						panic(http.ErrAbortHandler)
					}
				})
				rt := b.route(t, tt.dialect)
				s := serve(t, Config{Routes: []Route{rt}})
				body := strings.Replace(tt.body, `{`, `{"model":"m",`, 1)
				if strings.Contains(tt.body, `"model"`) {
					body = tt.body
				}
				resp := s.do(t, "POST", tt.path, body)
				got, err := io.ReadAll(resp.Body)
				if err == nil {
					t.Fatalf("the cut answer ended well: %q", got)
				}
				rest, ok := strings.CutPrefix(string(got), all)
				if !ok {
					t.Fatalf("got %q, want it to begin with %q", got, all)
				}
				if how != "breaks within a part" || tt.kind != framesType {
					if tt.name != "gemini array" {
						mustContain(t, "the end", rest, "the answer was cut off")
					}
				}
				if u := s.record(t, 1); u.Error == "" || !u.Estimated {
					t.Errorf("record %+v has no error or no guess", u)
				}
				if n, _, _ := counted(s.router.Meter(), "cut_off"); n != 1 {
					t.Errorf("%d answers counted as cut off", n)
				}
			})
		}
	}
}

func TestErrorEventsOfEachDialect(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"chat", errorEvent(OpenAI, endSentinel, "m"), `data: {"error":{"message":"m","type":"server_error","param":null,"code":null}}` + "\n\n"},
		{"responses", errorEvent(OpenAI, endResponse, "m"), "event: error\n" + `data: {"code":"server_error","message":"m","param":null,"type":"error"}` + "\n\n"},
		{"messages", errorEvent(Anthropic, endMessage, "m"), "event: error\n" + `data: {"error":{"message":"m","type":"api_error"},"type":"error"}` + "\n\n"},
		{"gemini", errorEvent(Gemini, endFinish, "m"), `data: {"error":{"code":502,"message":"m","status":"INTERNAL"}}` + "\n\n"},
	}
	for _, tt := range tests {
		if string(tt.got) != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestWholeAnswers(t *testing.T) {
	tests := []struct {
		name                    string
		dialect                 Dialect
		method, path, body      string
		answer                  string
		in, out                 int64
		base, backend, sentBody string
	}{
		{"chat", OpenAI, "POST", "/v1/chat/completions", `{"model":"a"}`, `{"usage":{"prompt_tokens":3,"completion_tokens":2}}`, 3, 2, "/v1", "/v1/chat/completions", `{"model":"a"}`},
		{"completions", OpenAI, "POST", "/v1/completions", `{"model":"a"}`, `{"usage":{"prompt_tokens":3,"completion_tokens":2}}`, 3, 2, "/api/v1", "/api/v1/completions", `{"model":"a"}`},
		{"embeddings", OpenAI, "POST", "/v1/embeddings", `{"model":"a","input":"x"}`, `{"data":[{"embedding":[0.1,-2e3]}],"usage":{"prompt_tokens":3,"total_tokens":3}}`, 3, 0, "", "/v1/embeddings", `{"model":"a","input":"x"}`},
		{"models", OpenAI, "GET", "/v1/models", "", `{"data":[]}`, 0, 0, "/v1/", "/v1/models", ""},
		{"model", OpenAI, "GET", "/v1/models/gpt-4o", "", `{"id":"gpt-4o"}`, 0, 0, "/v1", "/v1/models/gpt-4o", ""},
		{"messages", Anthropic, "POST", "/v1/messages", `{"model":"a"}`, `{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":99}}}],"usage":{"input_tokens":3,"output_tokens":2}}`, 3, 2, "/v1", "/v1/messages", `{"model":"a"}`},
		{"count tokens", Anthropic, "POST", "/v1/messages/count_tokens", `{"model":"a"}`, `{"input_tokens":3}`, 0, 0, "/anthropic", "/anthropic/v1/messages/count_tokens", `{"model":"a"}`},
		{"vertex", VertexClaude, "POST", "/v1/messages", `{"model":"a"}`, `{"usage":{"input_tokens":3,"output_tokens":2}}`, 3, 2, "/v1/p/models", "/v1/p/models/a:rawPredict", `{"anthropic_version":"vertex-2023-10-16"}`},
		{"vertex count", VertexClaude, "POST", "/v1/messages/count_tokens", `{"model":"a"}`, `{"input_tokens":3}`, 0, 0, "/v1/p/models", "/v1/p/models/count-tokens:rawPredict", `{"model":"a"}`},
		{"invoke", Bedrock, "POST", "/model/us.meta.llama3-v1:0/invoke", `{"prompt":"x"}`, `{"usage":{"input_tokens":3,"output_tokens":2}}`, 3, 2, "", "/model/us.meta.llama3-v1%3A0/invoke", `{"prompt":"x"}`},
		{"converse", Bedrock, "POST", "/model/a/converse", `{}`, `{"usage":{"inputTokens":3,"outputTokens":2}}`, 3, 2, "", "/model/a/converse", `{}`},
		{"gemini", Gemini, "POST", "/v1beta/models/g-2.5:generateContent", `{}`, `{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2}}`, 3, 2, "/v1beta", "/v1beta/models/g-2.5:generateContent", `{}`},
		{"gemini count", Gemini, "POST", "/v1/models/g:countTokens", `{}`, `{"totalTokens":3}`, 0, 0, "", "/v1/models/g:countTokens", `{}`},
		{"ollama", Ollama, "POST", "/api/generate", `{"model":"a","stream":false}`, `{"done":true,"prompt_eval_count":3,"eval_count":2}`, 3, 2, "/api", "/api/generate", `{"model":"a","stream":false}`},
		{"tags", Ollama, "GET", "/api/tags", "", `{"models":[]}`, 0, 0, "", "/api/tags", ""},
		{"version", Ollama, "GET", "/api/version", "", `{"version":"1"}`, 0, 0, "", "/api/version", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t, replying(200, tt.answer))
			rt := b.route(t, tt.dialect)
			rt.BaseURL = b.url(t, tt.base)
			s := serve(t, Config{Routes: []Route{rt}})
			status, body := s.ask(t, tt.method, tt.path, tt.body)
			if status != 200 || body != tt.answer {
				t.Fatalf("got %d %s", status, body)
			}
			if got := b.last(t); got.uri != tt.backend || got.body != tt.sentBody || got.method != tt.method {
				t.Errorf("backend got %s %s %s, want %s %s", got.method, got.uri, got.body, tt.backend, tt.sentBody)
			}
			if u := s.record(t, 1); u.TokensIn != tt.in || u.TokensOut != tt.out || u.Estimated {
				t.Errorf("record %+v, want %d and %d tokens", u, tt.in, tt.out)
			}
		})
	}
}
