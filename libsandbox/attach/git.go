// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/policy"
)

// maxGitHosts bounds the hosts that git is configured for, with three settings for each.
const maxGitHosts = 32

// gitPrograms are the programs of git that open connections.
var gitPrograms = []string{"/usr/bin/git", "/usr/lib/git-core/git-remote-http", "/usr/lib/git-core/git-remote-https"}

const (
	portHTTPS = 443
	portSSH   = 22
)

// gitEnvironment returns variables, NAME=VALUE, that configure git for the hosts that the
// policy lets it reach. Git then uses HTTPS, where the proxy judges requests, in place of
// SSH. If an attached provider has an endpoint at the host, git also sends the provider's
// placeholder.
func gitEnvironment(pol *policy.Policy, attached []proxyapi.Provider) []string {
	var config [][2]string
	for _, host := range gitHosts(pol) {
		url := "https://" + host + "/"
		config = append(config, [2]string{"url." + url + ".insteadOf", "git@" + host + ":"}, [2]string{"url." + url + ".insteadOf", "ssh://git@" + host + "/"})
		if token := gitToken(host, attached); token != "" {
			// The forges take any user with a token; this is GitHub's for it.
			basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
			config = append(config, [2]string{"http." + url + ".extraHeader", "Authorization: Basic " + basic})
		}
	}
	if len(config) == 0 {
		return nil
	}
	env := []string{fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config))}
	for i, c := range config {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, c[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, c[1]))
	}
	return env
}

// gitToken returns the placeholder of the first credential that belongs to a host, or "".
// It skips the keys of model APIs.
func gitToken(host string, attached []proxyapi.Provider) string {
	for _, p := range attached {
		bound := slices.ContainsFunc(p.Endpoints, func(e proxyapi.Endpoint) bool {
			return e.Host == host && e.Path == "" && slices.Contains(e.Ports, portHTTPS)
		})
		if bound && !p.ModelAPI && len(p.Credentials) > 0 {
			return provider.Placeholder(p.Credentials[0].Key)
		}
	}
	return ""
}

// gitHosts returns the names that the policy lets git reach by HTTPS, sorted. It leaves out
// names that the policy also allows by SSH: there the author of the policy wants SSH.
func gitHosts(pol *policy.Policy) []string {
	var https, ssh []string
	for _, n := range pol.Network {
		git := slices.ContainsFunc(n.Binaries, isGit)
		for _, e := range n.Endpoints {
			if slices.Contains(e.Ports, portSSH) {
				ssh = append(ssh, e.Host)
			}
			if git && e.Host != "" && !strings.Contains(e.Host, "*") && slices.Contains(e.Ports, portHTTPS) {
				https = append(https, e.Host)
			}
		}
	}
	https = slices.DeleteFunc(https, func(h string) bool { return slices.Contains(ssh, h) })
	slices.Sort(https)
	https = slices.Compact(https)
	return https[:min(len(https), maxGitHosts)]
}

// isGit reports whether a binary of the policy is, or matches, a program of git.
func isGit(b policy.Binary) bool {
	if !strings.Contains(b.Path, "*") {
		return slices.Contains(gitPrograms, b.Path)
	}
	g, err := policy.CompileGlob(b.Path, '/')
	return err == nil && slices.ContainsFunc(gitPrograms, g.Match)
}
