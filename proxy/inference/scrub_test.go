// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/secret"
)

// masking is a scrubber as simple as can be: it reads all, then replaces.
type masking struct {
	io.Reader
	io.Closer
}

func mask(body io.ReadCloser, s secret.Secret) io.ReadCloser {
	all, err := io.ReadAll(body)
	if err != nil {
		return body
	}
	return masking{bytes.NewReader(bytes.ReplaceAll(all, []byte(s.Reveal()), []byte("***"))), body}
}

func TestAnswersAreScrubbed(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"stream":  streaming(sseType, `data: {"x":"`+key+`"}`+"\n\n", "data: [DONE]\n\n"),
		"whole":   replying(200, `{"x":"`+key+`"}`),
		"refusal": replying(400, `{"x":"`+key+`"}`),
	} {
		b := newBackend(t, h)
		s := serve(t, Config{Routes: []Route{b.route(t, OpenAI)}, Scrub: mask})
		status, body := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true}`)
		if status == 502 || strings.Contains(body, key) || !strings.Contains(body, `{"x":"***"}`) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
