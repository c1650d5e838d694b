// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	t0 := time.Unix(1_000_000, 0)
	type step struct {
		at     int   // seconds after t0
		tokens int64 // guessed
		used   int64
		retry  int // seconds, if refused
	}
	tests := []struct {
		name   string
		budget Budget
		steps  []step
	}{
		{"none", Budget{}, []step{{0, 1 << 40, 1 << 40, 0}, {0, 0, 0, 0}}},
		{"requests per minute", Budget{RequestsPerMinute: 2}, []step{{0, 0, 0, 0}, {10, 0, 0, 0}, {20, 0, 0, 40}, {59, 0, 0, 1}, {60, 0, 0, 0}, {61, 0, 0, 9}, {70, 0, 0, 0}}},
		{"tokens per minute", Budget{TokensPerMinute: 100}, []step{{0, 5, 60, 0}, {1, 5, 40, 0}, {2, 5, 5, 58}, {60, 5, 60, 0}, {60, 5, 5, 1}, {61, 0, 0, 0}}},
		{"what one costs beyond it is waited for", Budget{TokensPerMinute: 100}, []step{{0, 0, 1000, 0}, {59, 0, 0, 1}, {60, 0, 0, 0}}},
		{"a guess too high is given back", Budget{TokensPerMinute: 100}, []step{{0, 5000, 10, 0}, {1, 0, 0, 0}}},
		{"requests in total", Budget{TotalRequests: 1}, []step{{0, 0, 0, 0}, {100_000, 0, 0, 3600}}},
		{"tokens in total", Budget{TotalTokens: 10}, []step{{0, 0, 9, 0}, {100, 0, 1, 0}, {100_000, 0, 0, 3600}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := new(Meter)
			for i, s := range tt.steps {
				now := t0.Add(time.Duration(s.at) * time.Second)
				c, over := m.admit(tt.budget, now, s.tokens)
				var retry time.Duration
				if over != nil {
					retry = over.retry
				} else {
					m.settle(c, now, s.used)
				}
				if retry != time.Duration(s.retry)*time.Second {
					t.Fatalf("step %d: retry after %v, want %d s", i, retry, s.retry)
				}
			}
		})
	}
}

// A large guess that is corrected in a later minute must not leave room there.
func TestBudgetCannotBeRefilledByAGuess(t *testing.T) {
	m, t0, b := new(Meter), time.Unix(1_000_000, 0), Budget{TokensPerMinute: 100}
	c, _ := m.admit(b, t0, 1_000_000)
	m.settle(c, t0.Add(61*time.Second), 0)
	c, over := m.admit(b, t0.Add(62*time.Second), 0)
	if over != nil {
		t.Fatal(over)
	}
	m.settle(c, t0.Add(62*time.Second), 100)
	if _, over = m.admit(b, t0.Add(63*time.Second), 0); over == nil {
		t.Error("the budget was refilled")
	}
}

func TestBudgetOutlivesAReload(t *testing.T) {
	b := newBackend(t, replying(200, `{"usage":{"prompt_tokens":30,"completion_tokens":20}}`))
	c := Config{Routes: []Route{b.route(t, OpenAI)}, Budget: Budget{TotalTokens: 50}, Meter: new(Meter)}
	for i, want := range []int{200, 429, 429} {
		s := serve(t, c)
		resp := s.do(t, "POST", "/v1/chat/completions", `{"model":"m"}`)
		s.record(t, 1)
		if resp.StatusCode != want {
			t.Errorf("router %d: %d, want %d", i, resp.StatusCode, want)
		}
		if want == 429 && (resp.Header.Get("X-Should-Retry") != "false" || resp.Header.Get("Retry-After") != "3600") {
			t.Errorf("header %v", resp.Header)
		}
	}
	if n, in, out := counted(c.Meter, "answered"); n != 1 || in != 30 || out != 20 {
		t.Errorf("%d answered, %d and %d tokens", n, in, out)
	}
	if n, _, _ := counted(c.Meter, "limited"); n != 2 || c.Meter.active != 0 {
		t.Errorf("%d limited, %d active", n, c.Meter.active)
	}
	if b.count() != 1 {
		t.Errorf("backend asked %d times", b.count())
	}
}

// A caller that does not ask for usage, or leaves before it is told, pays a guess.
func TestUntoldTokensAreGuessed(t *testing.T) {
	left := make(chan struct{})
	b := newBackend(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Accept") == "whole" {
			streaming(sseType, chatParts[0], chatParts[1], chatParts[5])(w, req)
			return
		}
		streaming(sseType, messageParts[:5]...)(w, req)
		<-req.Context().Done()
		close(left)
	})
	s := serve(t, Config{Routes: []Route{b.route(t, OpenAI), b.route(t, Anthropic)}})
	if status, _ := s.ask(t, "POST", "/v1/chat/completions", `{"model":"m","stream":true,"x":"0123456789"}`, "Accept", "whole"); status != 200 {
		t.Fatal(status)
	}
	if u := s.record(t, 1); u.TokensIn != 11 || u.TokensOut != 3 || !u.Estimated {
		t.Errorf("record %+v", u)
	}
	resp := s.do(t, "POST", "/v1/messages", `{"model":"m","stream":true}`)
	buf := make([]byte, 1)
	for n := 0; n < len(messageParts[0]+messageParts[1]+messageParts[2]+messageParts[3]+messageParts[4]); n++ {
		if _, err := resp.Body.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	resp.Body.Close()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Fatal("the backend was not told that the caller went away")
	}
	if u := s.record(t, 2); u.Status != statusGone || u.TokensIn != 15 || u.TokensOut != 5 || !u.Estimated {
		t.Errorf("record %+v", u)
	}
}
