// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"fmt"
	"sync"
	"time"
)

// Budget bounds what a sandbox may ask for. 0 is no bound. A request is refused when
// a bound has been reached before it, so the last one may go beyond the tokens.
type Budget struct {
	RequestsPerMinute, TokensPerMinute int64
	TotalRequests, TotalTokens         int64
}

func (b Budget) check() error {
	if b.RequestsPerMinute < 0 || b.TokensPerMinute < 0 || b.TotalRequests < 0 || b.TotalTokens < 0 {
		return fmt.Errorf("budget %+v has a negative bound", b)
	}
	return nil
}

// Meter counts requests and tokens, for budgets and as metrics. It outlives the
// router that counts with it.
type Meter struct {
	mu sync.Mutex
	// active are the requests under way, fallbacks those to another backend.
	active, fallbacks int64
	series            map[series]*counts
	charged           struct{ requests, tokens int64 } // all that a budget counts
	seconds           [60]second
}

// second is what a budget counts of one second.
type second struct {
	at               int64
	requests, tokens int64
}

// charge is an admitted request, and the tokens that it is charged until its answer
// says how many they were.
type charge struct {
	at     int64
	tokens int64
}

// overBudget is why a request is not admitted.
type overBudget struct {
	what  string
	retry time.Duration
	total bool
}

// admit charges one request and a guess at its tokens, unless a bound is reached.
func (m *Meter) admit(b Budget, now time.Time, tokens int64) (charge, *overBudget) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case b.TotalRequests > 0 && m.charged.requests >= b.TotalRequests:
		return charge{}, &overBudget{"requests in total", exhaustedRetry, true}
	case b.TotalTokens > 0 && m.charged.tokens >= b.TotalTokens:
		return charge{}, &overBudget{"tokens in total", exhaustedRetry, true}
	}
	at := now.Unix()
	if b.RequestsPerMinute > 0 {
		if wait := m.wait(at, b.RequestsPerMinute, func(s *second) int64 { return s.requests }); wait > 0 {
			return charge{}, &overBudget{what: "requests per minute", retry: wait}
		}
	}
	if b.TokensPerMinute > 0 {
		if wait := m.wait(at, b.TokensPerMinute, func(s *second) int64 { return s.tokens }); wait > 0 {
			return charge{}, &overBudget{what: "tokens per minute", retry: wait}
		}
	}
	s := m.second(at)
	s.requests++
	s.tokens += tokens
	m.charged.requests++
	m.charged.tokens += tokens
	return charge{at, tokens}, nil
}

// settle replaces the guess by what was used.
func (m *Meter) settle(c charge, now time.Time, tokens int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.charged.tokens += tokens - c.tokens
	if tokens >= c.tokens {
		m.second(now.Unix()).tokens += tokens - c.tokens
		return
	}
	// What was charged too much is given back where it was charged, so that it
	// cannot pay for what is used in another minute.
	if s := &m.seconds[c.at%int64(len(m.seconds))]; s.at == c.at {
		s.tokens -= c.tokens - tokens
	}
}

func (m *Meter) second(at int64) *second {
	s := &m.seconds[at%int64(len(m.seconds))]
	if s.at != at {
		*s = second{at: at}
	}
	return s
}

// wait returns how long until less than limit was counted in a minute.
func (m *Meter) wait(at, limit int64, of func(*second) int64) time.Duration {
	var sum int64
	n := int64(len(m.seconds))
	for i := range m.seconds {
		if s := &m.seconds[i]; s.at > at-n && s.at <= at {
			sum += of(s)
		}
	}
	for t := at - n + 1; sum >= limit && t <= at; t++ {
		if s := &m.seconds[t%n]; s.at == t {
			if sum -= of(s); sum < limit {
				return time.Duration(t+n-at) * time.Second
			}
		}
	}
	if sum >= limit {
		return time.Minute
	}
	return 0
}

// begin counts a request that has come; observe counts it when it has ended.
func (m *Meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active++
}

func (m *Meter) fallBack() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fallbacks++
}
