// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"golang.org/x/net/publicsuffix"
)

// TestBypass_B91_WildcardsOverTenants: a wildcard that leaves open whose host it is, is
// warned of, and one within a tenant's own names is not.
func TestBypass_B91_WildcardsOverTenants(t *testing.T) {
	for host, want := range map[string]string{
		"*.github.io": "github.io", "**.github.io": "github.io", "my-*.github.io": "github.io", "*.workers.dev": "workers.dev", "*.gitlab.io": "gitlab.io",
		"*.s3.amazonaws.com": "s3.amazonaws.com", "*.s3.eu-west-1.amazonaws.com": "s3.eu-west-1.amazonaws.com", "**.amazonaws.com": "s3.amazonaws.com",
		"*.s3.*.amazonaws.com": "s3.us-east-1.amazonaws.com", "*.blob.core.windows.net": "blob.core.windows.net", "**.windows.net": "blob.core.windows.net",
		"*.execute-api.us-east-1.amazonaws.com": "execute-api.us-east-1.amazonaws.com", "*.vercel.app": "vercel.app", "*.web.app": "web.app", "*.pages.dev": "pages.dev",
		"*.co.uk": "co.uk", "*.*.github.io": "github.io",
	} {
		if got := sharedSuffix(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	for _, host := range []string{
		"", "github.io", "me.github.io", "*.me.github.io", "**.me.github.io", "*.example.com", "**.example.co.uk", "*.bucket.s3.amazonaws.com", "bucket.s3.*.amazonaws.com",
		"*.internal.corp", "10.0.0.1", "*.0.0.1", "*.gitlab.com", "*.anthropic.com", "*.googleapis.com", "*.githubusercontent.com", "*.debian.org", "*.pypi.org",
	} {
		if got := sharedSuffix(host); got != "" {
			t.Errorf("%s: false alarm, %q", host, got)
		}
	}
	for _, suffix := range belowVendors {
		if got, icann := publicsuffix.PublicSuffix("x." + suffix); got != suffix || icann {
			t.Errorf("%s is no public suffix of the private section: %s", suffix, got)
		}
	}
}
