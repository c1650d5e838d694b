// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/proxy"
	"openshell.dev/runtime/proxy/ca"
	"openshell.dev/runtime/proxy/identity"
	"openshell.dev/runtime/proxy/upstream"
)

// oneProgram says that curl of container c1 holds every connection.
type oneProgram struct{}

func (oneProgram) Holders(_, _ netip.AddrPort) ([]identity.Process, error) {
	return []identity.Process{{Container: "c1", Pid: 4242, Binary: "/usr/bin/curl"}}, nil
}

func (oneProgram) Aliases(string, []string) (map[string][]string, error) { return nil, nil }

// printed prints decisions.
type printed struct{}

func (printed) Record(r decisionlog.Record) { fmt.Println(r.Verdict, r.Host, r.Reason) }

const policyText = `
version: 1
network_policies:
  web:
    binaries: [{path: /usr/bin/curl}]
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, access: read-only, enforcement: enforce}
`

// newSandbox adds the sandbox of container c1 to a new server.
func newSandbox() (*proxy.Server, *proxy.Sandbox) {
	authority, err := ca.New("c1", time.Now())
	if err != nil {
		panic(err)
	}
	server := proxy.New(proxy.Config{Identity: oneProgram{}, Log: printed{}})
	sandbox, err := server.Add(proxy.SandboxConfig{
		Container: "c1", CA: authority, Log: printed{}, MayNamePrograms: true,
		Upstream: upstream.New(upstream.Config{}), Roots: x509.NewCertPool,
	})
	if err != nil {
		panic(err)
	}
	return server, sandbox
}

// A sandbox denies everything until a policy is loaded; then its names resolve.
func ExampleSandbox_Load() {
	_, sandbox := newSandbox()
	fmt.Println("before:", sandbox.MayResolve("api.example.com"))
	if err := sandbox.Load("web.yaml", []byte(policyText), 1); err != nil {
		fmt.Println(err)
	}
	name, revision, _ := sandbox.Loaded()
	fmt.Println(name, "revision", revision)
	fmt.Println("after:", sandbox.MayResolve("api.example.com"), sandbox.MayResolve("evil.example.net"))
	// Output:
	// before: false
	// web.yaml revision 1
	// after: true false
}

// A policy that is invalid changes nothing. DenyAll denies everything in its place.
func ExampleSandbox_DenyAll() {
	_, sandbox := newSandbox()
	if err := sandbox.Load("web.yaml", []byte(policyText), 1); err != nil {
		fmt.Println(err)
	}
	err := sandbox.Load("bad.yaml", []byte("network_policies: 7"), 2)
	fmt.Println(errors.Is(err, proxy.ErrInvalid), sandbox.MayResolve("api.example.com"))
	sandbox.DenyAll("bad.yaml", 2)
	fmt.Println(sandbox.MayResolve("api.example.com"))
	fmt.Println(sandbox.Closed())
	// Output:
	// true true
	// false
	// everything is denied: an invalid policy was set, and no valid one since
}

// A container has one sandbox; another can be added after it was removed.
func ExampleServer_Add() {
	server, sandbox := newSandbox()
	_, err := server.Add(proxy.SandboxConfig{Container: "c1"})
	fmt.Println(err)
	server.Remove(sandbox)
	_, err = server.Add(proxy.SandboxConfig{Container: "c1", Log: printed{}})
	fmt.Println(err)
	// Output:
	// container c1 has a sandbox already
	// <nil>
}
