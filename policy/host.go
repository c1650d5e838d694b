// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Limits of a host name, as DNS sets them.
const (
	// MaxHostLength is the longest name in bytes, without its trailing dot.
	MaxHostLength = 253
	// MaxLabelLength is the longest label in bytes.
	MaxLabelLength = 63
)

// NormalizeHost returns the spelling of a host that rules are matched against: a lower-case
// ASCII name without its trailing dot, or the canonical text of an address. It refuses a
// host that programs read in different ways.
func NormalizeHost(s string) (string, error) {
	h, err := normalizeHost(s)
	if err != nil {
		return "", fmt.Errorf("host %.80q: %w", s, err)
	}
	return h, nil
}

func normalizeHost(s string) (string, error) {
	if in, ok := strings.CutPrefix(s, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		a, err := netip.ParseAddr(in)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", errors.New("brackets hold no plain IPv6 address")
		}
		return a.Unmap().String(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return "", errors.New("an address may not have a zone")
		}
		return a.Unmap().String(), nil
	}
	h := strings.TrimSuffix(s, ".")
	// The length is checked before IDNA, whose mapping shortens a name at most fourfold.
	if len(h) > 4*MaxHostLength {
		return "", errors.New("name is too long")
	}
	for i := range len(h) {
		if h[i] <= ' ' || h[i] == 0x7f {
			return "", errors.New("name has a control byte or a space")
		}
	}
	lower := asciiLower(h)
	if !isASCII(lower) || strings.Contains(lower, "xn--") {
		var err error
		if lower, err = idna.Lookup.ToASCII(lower); err != nil {
			return "", fmt.Errorf("not a valid international name: %w", err)
		}
		// The first pass accepts bytes that are not UTF-8; the second one does not.
		if again, err := idna.Lookup.ToASCII(lower); err != nil || again != lower {
			return "", errors.New("not a valid international name")
		}
	}
	if len(lower) > MaxHostLength {
		return "", errors.New("name is too long")
	}
	last := ""
	for last = range strings.SplitSeq(lower, ".") {
		if err := checkLabel(last); err != nil {
			return "", err
		}
	}
	// Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses.
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return "", errors.New("name ends in a number but is not a canonical address")
	}
	return lower, nil
}

func checkLabel(l string) error {
	if l == "" || len(l) > MaxLabelLength {
		return errors.New("name has an empty label or one over 63 bytes")
	}
	if l[0] == '-' || l[len(l)-1] == '-' {
		return errors.New("a label begins or ends with a hyphen")
	}
	for i := range len(l) {
		if c := l[i]; c != '-' && c != '_' && !alnum(c) {
			return errors.New("name has a byte other than letters, digits, '-' and '_'")
		}
	}
	return nil
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// asciiLower changes only ASCII letters. strings.ToLower would turn the Kelvin sign into a
// k.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
