// SPDX-License-Identifier: Apache-2.0

// Package bytesize parses numbers of bytes with a unit.
package bytesize

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// text matches a size as container engines write it: 64m, 1.5GiB, 1024.
var text = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(?i:([kmgtp]?)(?:i?b)?)$`)
})

// Parse parses a number of bytes with an optional unit, a power of 1024.
func Parse(s string) (int64, error) {
	m := text().FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	if unit := strings.ToLower(m[2]); unit != "" {
		n *= float64(int64(1) << (10 * (1 + strings.Index("kmgtp", unit))))
	}
	if n >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s' is too large", s)
	}
	return int64(n), nil
}
