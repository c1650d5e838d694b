// SPDX-License-Identifier: Apache-2.0

// Package registry finds the package registries of a package client by asking the client.
// It knows no registry's host itself.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// askTimeout limits how long one client program may run.
const askTimeout = 30 * time.Second

// Client is a package client.
type Client struct {
	// Name is the name of the client.
	Name string
	// Binaries are the usual paths of the programs that download for the client in images.
	Binaries []string
	// ask returns the URLs in the client's configuration.
	ask func(context.Context) ([]string, error)
}

// Clients returns the supported clients.
func Clients() []Client {
	return []Client{
		{"go", []string{"/usr/local/go/bin/go", "/usr/bin/go", "/usr/lib/go-*/bin/go"}, goEnv},
		{"npm", []string{"/usr/bin/node", "/usr/local/bin/node"}, npm},
		{"pip", []string{"/usr/bin/python3*", "/usr/local/bin/python3*"}, pip},
	}
}

// Registries returns the registries for which the client is configured on this machine and
// in the current folder, without any credentials in their URLs.
func (c *Client) Registries(ctx context.Context) ([]*url.URL, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	said, err := c.ask(ctx)
	if err != nil {
		return nil, err
	}
	var out []*url.URL
	for _, s := range said {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("%s is configured for a registry whose address is not a URL", c.Name) // the URL may contain a credential
		}
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		if !slices.ContainsFunc(out, func(v *url.URL) bool { return *v == *u }) {
			out = append(out, u)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s is configured for no registry", c.Name)
	}
	return out, nil
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // what it started may hold on to its output
	out, err := cmd.Output()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%s is not installed here: run this where it is configured", name)
	case errors.As(err, &failed):
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	case err != nil:
		return "", fmt.Errorf("ask %s: %w", name, err)
	}
	return string(out), nil
}

// npm has one registry, and one for each scope.
func npm(ctx context.Context) (urls []string, err error) {
	text, err := run(ctx, "npm", "config", "list", "--json")
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("npm config list: %w", err)
	}
	for k, v := range all {
		if s, ok := v.(string); ok && s != "" && (k == "registry" || strings.HasSuffix(k, ":registry")) {
			urls = append(urls, s)
		}
	}
	slices.Sort(urls)
	return urls, nil
}

// goEnv returns the list of proxies and the checksum database, which may be reached without
// a proxy.
func goEnv(ctx context.Context) (urls []string, err error) {
	text, err := run(ctx, "go", "env", "GOPROXY", "GOSUMDB")
	if err != nil {
		return nil, err
	}
	proxies, sums, _ := strings.Cut(strings.TrimSpace(text), "\n")
	for _, p := range strings.FieldsFunc(proxies, func(r rune) bool { return r == ',' || r == '|' }) {
		if p = strings.TrimSpace(p); p != "direct" && p != "off" && p != "" {
			urls = append(urls, p)
		}
	}
	// The forms are NAME, NAME+KEY, and either of them with a URL; see go help module-auth.
	fields := strings.Fields(sums)
	switch {
	case len(urls) == 0 || len(fields) == 0 || fields[0] == "off":
	case len(fields) > 1:
		urls = append(urls, fields[1])
	default:
		name, _, _ := strings.Cut(fields[0], "+")
		urls = append(urls, "https://"+name)
	}
	return urls, nil
}

// pip has indexes in its configuration files and its environment. It does not print its
// built-in index.
func pip(ctx context.Context) (urls []string, err error) {
	text, err := run(ctx, "pip", "config", "list")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if i := strings.LastIndexByte(key, '.'); i < 0 || key[i:] != ".index-url" && key[i:] != ".extra-index-url" {
			continue
		}
		urls = append(urls, strings.Fields(strings.Trim(value, `'"`))...)
	}
	if len(urls) == 0 {
		return nil, errors.New("pip is configured for no index: name one with: pip config set global.index-url URL")
	}
	return urls, nil
}
