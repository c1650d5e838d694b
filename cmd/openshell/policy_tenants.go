// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"openshell.dev/runtime/policy"
)

// belowVendors are public suffixes below a vendor's own domain, which a wildcard over
// that domain covers. Package publicsuffix cannot list the suffixes below a name.
var belowVendors = []string{
	"s3.amazonaws.com", "s3.us-east-1.amazonaws.com", "execute-api.us-east-1.amazonaws.com", "lambda-url.us-east-1.on.aws",
	"blob.core.windows.net", "a.run.app",
}

// vendorsOwn are public suffixes below which all names belong to the vendor, who tells
// tenants apart by path. The list has them so that they share no cookies.
var vendorsOwn = []string{"googleapis.com", "githubusercontent.com"}

// tenantWarnings warns of wildcards over hosts of many tenants: anybody can get a name
// there and receives the requests to it. The public suffix list names these hosts. The
// warnings are not in package policy, because the proxy has no use for the list.
func tenantWarnings(p *policy.Policy) (out []policy.Warning) {
	for _, n := range p.Network {
		for _, e := range n.Endpoints {
			if suffix := sharedSuffix(e.Host); suffix != "" {
				out = append(out, policy.Warning{Line: e.Line, Msg: fmt.Sprintf(
					"host %s reaches names of many tenants: anybody can get a name below %s and receives the requests to it; write out the names that are meant", e.Host, suffix)})
			}
		}
	}
	return out
}

// sharedSuffix returns the public suffix below which a wildcard covers the label of the
// tenant, "" if there is none.
func sharedSuffix(host string) string {
	if !strings.Contains(host, "*") {
		return ""
	}
	labels := strings.Split(host, ".")
	suffix, _ := publicsuffix.PublicSuffix(strings.ReplaceAll(strings.ReplaceAll(host, "**", "x"), "*", "x"))
	tenant := max(0, len(labels)-strings.Count(suffix, ".")-2)
	if strings.Contains(strings.Join(labels[tenant:], "."), "*") && !slices.Contains(vendorsOwn, suffix) {
		return suffix
	}
	g, err := policy.CompileGlob(host, '.')
	for _, suffix := range belowVendors {
		if err == nil && g.Match("x."+suffix) {
			return suffix
		}
	}
	return ""
}
