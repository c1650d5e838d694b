// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"strings"
)

// hostIndex finds the endpoints whose host could match a name. Its lists hold indexes of
// Engine.endpoints, in ascending order, which is the order in which endpoints decide.
type hostIndex struct {
	literal map[string][]int
	// bySuffix holds the patterns whose last two labels are literal, by these labels.
	// anywhere holds the other patterns and the endpoints without a host.
	bySuffix map[string][]int
	anywhere []int
}

func (x *hostIndex) add(i int, ep *endpoint) {
	switch suffix, ok := lastTwoLabels(ep.host); {
	case ep.host == "":
		x.anywhere = append(x.anywhere, i)
	case !ep.wildcard:
		x.literal[ep.host] = append(x.literal[ep.host], i)
	case ok && !strings.ContainsAny(suffix, `*?[]{},\`):
		x.bySuffix[suffix] = append(x.bySuffix[suffix], i)
	default:
		x.anywhere = append(x.anywhere, i)
	}
}

// lastTwoLabels returns false for a name with fewer than three labels.
func lastTwoLabels(host string) (string, bool) {
	last := strings.LastIndexByte(host, '.')
	if last < 0 {
		return "", false
	}
	before := strings.LastIndexByte(host[:last], '.')
	return host[before+1:], before >= 0
}

// candidates iterates over the lists for a host in ascending order.
type candidates struct{ lists [3][]int }

func (x *hostIndex) candidates(host string) candidates {
	c := candidates{[3][]int{x.literal[host], nil, x.anywhere}}
	if suffix, ok := lastTwoLabels(host); ok {
		c.lists[1] = x.bySuffix[suffix]
	}
	return c
}

func (c *candidates) next() (int, bool) {
	best, from := math.MaxInt, -1
	for l, list := range c.lists {
		if len(list) > 0 && list[0] < best {
			best, from = list[0], l
		}
	}
	if from < 0 {
		return 0, false
	}
	c.lists[from] = c.lists[from][1:]
	return best, true
}
