// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxAlternatives is the largest number of alternatives of one pattern, the product of its
// braces.
const MaxAlternatives = 256

// globParser parses one pattern into its alternatives.
type globParser struct {
	pattern string
	sep     byte
	// unicode allows literal characters that are not ASCII.
	unicode bool
	at      int
	depth   int
}

// glob compiles the pattern. Errors quote written, the pattern as it is in the document.
func (p *globParser) glob(written string) (Glob, error) {
	alternatives, err := p.parse()
	if err != nil {
		return Glob{}, fmt.Errorf("pattern %q: %w", written, err)
	}
	return Glob{p.sep, alternatives}, nil
}

func (p *globParser) parse() ([][]globToken, error) {
	alternatives, err := p.sequence()
	if err == nil && p.at < len(p.pattern) { // only a } ends a sequence early
		err = errors.New("} without {")
	}
	return alternatives, err
}

// sequence parses up to the end of the pattern or of the current alternative of a brace.
func (p *globParser) sequence() ([][]globToken, error) {
	out := [][]globToken{nil}
	for p.at < len(p.pattern) {
		c := p.pattern[p.at]
		switch {
		case c == '}', c == ',' && p.depth > 0:
			return out, nil
		case c == '{':
			branches, err := p.braces()
			if err != nil {
				return nil, err
			}
			if len(out)*len(branches) > MaxAlternatives {
				return nil, fmt.Errorf("has more than %d alternatives", MaxAlternatives)
			}
			out = product(out, branches)
		default:
			t, err := p.token()
			if err != nil {
				return nil, err
			}
			for i := range out {
				out[i] = push(out[i], t)
			}
		}
	}
	return out, nil
}

func (p *globParser) braces() ([][]globToken, error) {
	var out [][]globToken
	p.depth++
	for {
		p.at++ // the { or the ,
		branch, err := p.sequence()
		if err != nil {
			return nil, err
		}
		if out = append(out, branch...); len(out) > MaxAlternatives {
			return nil, fmt.Errorf("has more than %d alternatives", MaxAlternatives)
		}
		if p.at == len(p.pattern) {
			return nil, errors.New("{ without }")
		}
		if p.pattern[p.at] == '}' {
			p.at++
			p.depth--
			return out, nil
		}
	}
}

func product(heads, tails [][]globToken) [][]globToken {
	var out [][]globToken
	for _, head := range heads {
		for _, tail := range tails {
			all := slices.Clone(head)
			for _, t := range tail {
				all = push(all, t)
			}
			out = append(out, all)
		}
	}
	return out
}

// push appends t to list, and joins neighbouring literals.
func push(list []globToken, t globToken) []globToken {
	if n := len(list); n > 0 && t.kind == literalToken && list[n-1].kind == literalToken {
		list[n-1].literal += t.literal
		return list
	}
	return append(list, t)
}

// token parses anything except braces.
func (p *globParser) token() (globToken, error) {
	c := p.pattern[p.at]
	switch c {
	case '*':
		return p.stars(), nil
	case '?':
		p.at++
		any := charClass{not: true}
		any.add(p.sep, p.sep)
		return globToken{kind: classToken, class: any}, nil
	case '[':
		return p.class()
	case '\\':
		if p.at++; p.at == len(p.pattern) {
			return globToken{}, errors.New("ends in a \\")
		}
		c = p.pattern[p.at]
	}
	if c >= 0x80 && !p.unicode {
		return globToken{}, errNotASCII
	}
	from := p.at
	p.at++
	for p.at < len(p.pattern) && p.plain(p.pattern[p.at]) {
		p.at++
	}
	return globToken{literal: p.pattern[from:p.at]}, nil
}

// plain reports whether c stands for itself.
func (p *globParser) plain(c byte) bool {
	return (c < 0x80 || p.unicode) && strings.IndexByte(`*?[{}\`, c) < 0 && (c != ',' || p.depth == 0)
}

var errNotASCII = errors.New("has a byte that is not ASCII: write it percent-encoded or in punycode")

// stars parses a run of stars.
func (p *globParser) stars() globToken {
	s, from := p.pattern, p.at
	for p.at < len(s) && s[p.at] == '*' {
		p.at++
	}
	atEnd := p.at == len(s)
	whole := p.at-from == 2 && (from == 0 || s[from-1] == p.sep) && (atEnd || s[p.at] == p.sep)
	switch {
	case whole && from > 0 && !atEnd: // a/**/b is also a/b
		p.at++
		return globToken{kind: treeToken}
	case whole:
		return globToken{kind: runToken}
	}
	return globToken{kind: starToken}
}

func (p *globParser) class() (globToken, error) {
	rest := p.pattern[p.at+1:]
	end := strings.IndexByte(rest, ']')
	if end < 1 {
		return globToken{}, errors.New("[ without ]")
	}
	set := rest[:end]
	p.at += end + 2
	var c charClass
	if set[0] == '!' || set[0] == '^' {
		c.not, set = true, set[1:]
	} else if strings.IndexByte(set, p.sep) >= 0 {
		return globToken{}, errors.New("the separator in [ ] can never match")
	}
	if set == "" {
		return globToken{}, errors.New("[ ] is empty")
	}
	if !isASCII(set) {
		return globToken{}, errNotASCII
	}
	for len(set) > 0 {
		lo, hi, n := set[0], set[0], 1
		if len(set) > 2 && set[1] == '-' {
			hi, n = set[2], 3
		}
		if lo > hi {
			return globToken{}, fmt.Errorf("the range %s ends before it begins", set[:n])
		}
		c.add(lo, hi)
		set = set[n:]
	}
	if c.not {
		c.add(p.sep, p.sep)
	} else {
		c.bits[p.sep>>6] &^= 1 << (p.sep & 63)
	}
	return globToken{kind: classToken, class: c}, nil
}
