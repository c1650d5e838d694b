// SPDX-License-Identifier: Apache-2.0

package fakeapi

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
)

// responses is OpenAI's newer API.
func (a *answer) responses() error {
	var ask struct {
		Model  string
		Stream bool
		Tools  []struct{ Type, Name string }
	}
	if err := a.decode(&ask); err != nil {
		return err
	}
	var tools []string
	for _, t := range ask.Tools {
		tools = append(tools, t.Name)
	}
	do := a.next(tools)
	item := map[string]any{
		"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
		"content": []any{map[string]any{"type": "output_text", "text": do.text, "annotations": []any{}}},
	}
	if do.tool != "" {
		item = map[string]any{"type": "function_call", "id": "fc_1", "call_id": "call_" + a.id(), "status": "completed", "name": do.tool, "arguments": strings.Join(do.arguments(), "")}
	}
	response := map[string]any{
		"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": ask.Model, "output": []any{item}, "error": nil, "incomplete_details": nil,
		"parallel_tool_calls": true, "tool_choice": "auto", "tools": []any{},
		"usage": map[string]any{
			"input_tokens": 11, "output_tokens": 5, "total_tokens": 16,
			"input_tokens_details": map[string]any{"cached_tokens": 0}, "output_tokens_details": map[string]any{"reasoning_tokens": 0},
		},
	}
	if !ask.Stream {
		a.whole(response)
		return nil
	}
	nth := -1
	send := func(kind string, doc map[string]any) {
		nth++
		doc["type"], doc["sequence_number"] = kind, nth
		a.event(kind, doc)
	}
	begun := map[string]any{}
	for k, v := range response {
		begun[k] = v
	}
	begun["status"], begun["output"], begun["usage"] = "in_progress", []any{}, nil
	send("response.created", map[string]any{"response": begun})
	added := map[string]any{}
	for k, v := range item {
		added[k] = v
	}
	added["status"] = "in_progress"
	if do.tool == "" {
		added["content"] = []any{}
		part := func(text string) map[string]any {
			return map[string]any{"type": "output_text", "text": text, "annotations": []any{}}
		}
		at := func(more ...any) map[string]any {
			doc := map[string]any{"item_id": "msg_1", "output_index": 0, "content_index": 0}
			for i := 0; i < len(more); i += 2 {
				doc[more[i].(string)] = more[i+1]
			}
			return doc
		}
		send("response.output_item.added", map[string]any{"output_index": 0, "item": added})
		send("response.content_part.added", at("part", part("")))
		send("response.output_text.delta", at("delta", do.text))
		send("response.output_text.done", at("text", do.text))
		send("response.content_part.done", at("part", part(do.text)))
	} else {
		added["arguments"] = ""
		send("response.output_item.added", map[string]any{"output_index": 0, "item": added})
		for _, p := range do.arguments() {
			send("response.function_call_arguments.delta", map[string]any{"item_id": "fc_1", "output_index": 0, "delta": p})
		}
		send("response.function_call_arguments.done", map[string]any{"item_id": "fc_1", "output_index": 0, "arguments": strings.Join(do.arguments(), "")})
	}
	send("response.output_item.done", map[string]any{"output_index": 0, "item": item})
	send("response.completed", map[string]any{"response": response})
	return nil
}

// chat is OpenAI's older API, which many other services use, too.
func (a *answer) chat() error {
	var ask struct {
		Model  string
		Stream bool
		Tools  []struct{ Function struct{ Name string } }
	}
	if err := a.decode(&ask); err != nil {
		return err
	}
	var tools []string
	for _, t := range ask.Tools {
		tools = append(tools, t.Function.Name)
	}
	do := a.next(tools)
	reason, message := "stop", map[string]any{"role": "assistant", "content": do.text}
	tool := func(arguments string) []any {
		return []any{map[string]any{"index": 0, "id": "call_" + a.id(), "type": "function", "function": map[string]any{"name": do.tool, "arguments": arguments}}}
	}
	if do.tool != "" {
		reason, message = "tool_calls", map[string]any{"role": "assistant", "content": nil, "tool_calls": tool(strings.Join(do.arguments(), ""))}
	}
	usage := map[string]any{"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
	if !ask.Stream {
		a.whole(map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": ask.Model, "usage": usage,
			"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": reason}},
		})
		return nil
	}
	chunk := func(delta map[string]any, reason, usage any) {
		a.event("", map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": ask.Model, "usage": usage,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": reason}},
		})
	}
	if do.tool == "" {
		chunk(message, nil, nil)
	} else {
		pieces := do.arguments()
		message["tool_calls"] = tool(pieces[0])
		chunk(message, nil, nil)
		chunk(map[string]any{"tool_calls": []any{map[string]any{"index": 0, "function": map[string]any{"arguments": pieces[1]}}}}, nil, nil)
	}
	chunk(map[string]any{}, reason, usage)
	a.event("", "[DONE]")
	return nil
}

// embeddings returns the same vector for every input.
func (a *answer) embeddings() error {
	var ask struct {
		Model    string
		Encoding string `json:"encoding_format"`
	}
	if err := a.decode(&ask); err != nil {
		return err
	}
	vector := []float32{0.5, -1, 2}
	var out any = vector
	if ask.Encoding == "base64" {
		var raw []byte
		for _, f := range vector {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
		}
		out = base64.StdEncoding.EncodeToString(raw)
	}
	a.whole(map[string]any{
		"object": "list", "model": ask.Model, "usage": map[string]any{"prompt_tokens": 3, "total_tokens": 3},
		"data": []any{map[string]any{"object": "embedding", "index": 0, "embedding": out}},
	})
	return nil
}
