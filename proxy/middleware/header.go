// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"openshell.dev/runtime/proxy/header"
)

// Prefix is that of the headers that a middleware may write.
const Prefix = "X-Openshell-Middleware-"

// protected headers are neither shown to a middleware nor changed by one: they
// carry credentials, or say where a request goes and how it is read.
var protected = func() []string {
	out := []string{"authorization", "proxy-authorization", "proxy-authenticate", "cookie", "host", "content-length"}
	for _, name := range header.HopByHop {
		out = append(out, strings.ToLower(name))
	}
	return out
}()

func isProtected(name string) bool {
	return slices.Contains(protected, name) || strings.HasPrefix(name, "x-amz-") || strings.HasPrefix(name, "x-openshell-credential")
}

// line is one header line as services see it.
type line struct{ name, value string }

// visible are the lines that a middleware sees: by name, those of one name in their
// order.
func visible(h http.Header) (out []line) {
	hop := header.Nominated(h)
	for _, k := range slices.Sorted(maps.Keys(h)) {
		name := strings.ToLower(k)
		if isProtected(name) || slices.Contains(hop, k) {
			continue
		}
		for _, v := range h[k] {
			out = append(out, line{name, strings.TrimSpace(v)})
		}
	}
	return out
}

// mutation is one change of the header that a service asks for.
type mutation struct {
	name, value string
	remove      bool
	existing    uint64
}

// What a write does to a header that is there.
const (
	existingAppend    = 1
	existingOverwrite = 2
	existingSkip      = 3
)

// mutate gives the header with all mutations, or the code of the first that may not
// be.
func mutate(h http.Header, list []mutation) (http.Header, error) {
	if len(list) > maxMutations {
		return nil, code("header_mutation_count_over_capacity")
	}
	hop := header.Nominated(h)
	out := h.Clone()
	size := 0
	for _, m := range list {
		name := strings.ToLower(m.name)
		size += len(name) + len(m.value)
		key := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return nil, code("header_mutation_invalid_name")
		case isProtected(name):
			return nil, code("header_mutation_protected_header")
		case slices.Contains(hop, key):
			return nil, code("header_mutation_hop_by_hop_header")
		case size > maxMutationBytes:
			return nil, code("header_mutation_bytes_over_capacity")
		case m.remove:
			out.Del(key)
		case !strings.HasPrefix(key, Prefix):
			return nil, code("header_mutation_write_namespace")
		case !httpguts.ValidHeaderFieldValue(m.value):
			return nil, code("header_mutation_unsafe_value")
		case m.existing == existingAppend, m.existing != 0 && m.existing <= existingSkip && len(out[key]) == 0:
			out.Add(key, m.value)
		case m.existing == existingOverwrite:
			out.Set(key, m.value)
		case m.existing != existingSkip:
			return nil, code("header_mutation_invalid_existing_action")
		}
	}
	return out, nil
}
