// SPDX-License-Identifier: Apache-2.0

package fakeapi

import "net/http"

// github responds to the requests of Copilot CLI about the user and the models, at GitHub
// and its model API.
func (a *answer) github() bool {
	switch {
	case a.h.Method != http.MethodGet:
		return false
	case a.h.Host == "api.github.com" && a.h.Path == "/copilot_internal/user":
		a.whole(map[string]any{
			"login": "somebody", "access_type_sku": "copilot_enterprise_seat", "copilot_plan": "enterprise", "chat_enabled": true, "cli_enabled": true,
			"endpoints": map[string]any{"api": "https://api.githubcopilot.com"},
		})
		return true
	case a.h.Host == "api.githubcopilot.com" && a.h.Path == "/models":
		a.whole(map[string]any{"object": "list", "data": []any{map[string]any{
			"id": "gpt-5.4", "name": "GPT-5.4", "object": "model", "vendor": "OpenAI", "version": "gpt-5.4", "preview": false,
			"model_picker_enabled": true, "model_picker_category": "versatile", "is_chat_default": true, "is_chat_fallback": true, "supported_endpoints": []any{"/chat/completions"},
			"policy":  map[string]any{"state": "enabled", "terms": ""},
			"billing": map[string]any{"is_premium": false, "multiplier": 0},
			"capabilities": map[string]any{
				"family": "gpt-5.4", "object": "model_capabilities", "tokenizer": "o200k_base", "type": "chat",
				"limits":   map[string]any{"max_context_window_tokens": 128000, "max_output_tokens": 16384, "max_prompt_tokens": 111424},
				"supports": map[string]any{"parallel_tool_calls": true, "streaming": true, "tool_calls": true},
			},
		}}})
		return true
	}
	return false
}
