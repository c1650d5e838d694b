// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"openshell.dev/runtime/policy"
)

// belowVendors are public suffixes that lie below a vendor's own domain, where a
// wildcard over that domain reaches them: the list itself cannot be searched for them.
var belowVendors = []string{
	"s3.amazonaws.com", "s3.us-east-1.amazonaws.com", "execute-api.us-east-1.amazonaws.com", "lambda-url.us-east-1.on.aws",
	"blob.core.windows.net", "a.run.app",
}

// vendorsOwn are public suffixes below which all names are the vendor's, who keeps
// tenants apart by path: the list has them for the sake of cookies.
var vendorsOwn = []string{"googleapis.com", "githubusercontent.com"}

// tenantWarnings are about wildcards over hosts of many tenants: anybody can get a
// name there, and reads what is sent to it. The public suffix list says which they are.
// It is here and not in package policy because the proxy does not need it.
func tenantWarnings(p *policy.Policy) (out []policy.Warning) {
	for _, n := range p.Network {
		for _, e := range n.Endpoints {
			if suffix := sharedSuffix(e.Host); suffix != "" {
				out = append(out, policy.Warning{Line: e.Line, Msg: fmt.Sprintf(
					"host %s reaches names of many tenants: anybody can have one below %s, and gets what is sent there; write out the names that are meant", e.Host, suffix)})
			}
		}
	}
	return out
}

// sharedSuffix is the public suffix below which a wildcard leaves the tenant's label
// open; empty if there is none.
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
