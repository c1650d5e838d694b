// SPDX-License-Identifier: Apache-2.0

package fakeapi

// messages is Anthropic's API.
func (a *answer) messages() error {
	var ask struct {
		Model  string
		Stream bool
		Tools  []struct{ Name string }
	}
	if err := a.decode(&ask); err != nil {
		return err
	}
	var tools []string
	for _, t := range ask.Tools {
		tools = append(tools, t.Name)
	}
	do := a.next(tools)
	reason, block := "end_turn", map[string]any{"type": "text", "text": do.text}
	if do.tool != "" {
		reason, block = "tool_use", map[string]any{"type": "tool_use", "id": "toolu_" + a.id(), "name": do.tool, "input": do.args}
	}
	message := map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": ask.Model, "content": []any{block}, "stop_reason": reason, "stop_sequence": nil,
		"usage": map[string]any{"input_tokens": 11, "output_tokens": 5},
	}
	if !ask.Stream {
		a.whole(message)
		return nil
	}
	message["content"], message["stop_reason"] = []any{}, nil
	a.event("message_start", map[string]any{"type": "message_start", "message": message})
	a.event("ping", map[string]any{"type": "ping"})
	delta := func(d map[string]any) {
		a.event("content_block_delta", map[string]any{"type": "content_block_delta", "index": 0, "delta": d})
	}
	if do.tool == "" {
		block["text"] = ""
		a.event("content_block_start", map[string]any{"type": "content_block_start", "index": 0, "content_block": block})
		delta(map[string]any{"type": "text_delta", "text": do.text})
	} else {
		block["input"] = map[string]any{}
		a.event("content_block_start", map[string]any{"type": "content_block_start", "index": 0, "content_block": block})
		for _, p := range do.arguments() {
			delta(map[string]any{"type": "input_json_delta", "partial_json": p})
		}
	}
	a.event("content_block_stop", map[string]any{"type": "content_block_stop", "index": 0})
	a.event("message_delta", map[string]any{"type": "message_delta", "delta": map[string]any{"stop_reason": reason, "stop_sequence": nil}, "usage": map[string]any{"output_tokens": 5}})
	a.event("message_stop", map[string]any{"type": "message_stop"})
	return nil
}
