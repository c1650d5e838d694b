// SPDX-License-Identifier: Apache-2.0

package fakeapi

import "strings"

// gemini is Google's API.
func (a *answer) gemini() error {
	var ask struct {
		Tools []struct {
			FunctionDeclarations []struct{ Name string }
		}
	}
	if err := a.decode(&ask); err != nil {
		return err
	}
	var tools []string
	for _, t := range ask.Tools {
		for _, f := range t.FunctionDeclarations {
			tools = append(tools, f.Name)
		}
	}
	do := a.next(tools)
	part := map[string]any{"text": do.text}
	if do.tool != "" {
		part = map[string]any{"functionCall": map[string]any{"name": do.tool, "args": do.args}}
	}
	doc := map[string]any{
		"candidates":    []any{map[string]any{"index": 0, "content": map[string]any{"role": "model", "parts": []any{part}}, "finishReason": "STOP"}},
		"usageMetadata": map[string]any{"promptTokenCount": 11, "candidatesTokenCount": 5, "totalTokenCount": 16},
		"modelVersion":  "fake",
	}
	if strings.Contains(a.h.Path, ":streamGenerateContent") {
		a.event("", doc)
		return nil
	}
	a.whole(doc)
	return nil
}
