// SPDX-License-Identifier: Apache-2.0

// Package proxy carries the connections that leave sandboxes, as far as their policies
// allow.
//
// A [Server] serves the connections of one network namespace. Each container in it has a
// [Sandbox]: its policy, credentials, CA, names, log and TLS sessions. A connection takes
// these steps:
//
//  1. accept: [Server.Serve] takes it, once there is memory for it (server.go).
//  2. identify: the [Identifier] tells which processes hold it. They must be of one
//     container, whose sandbox decides. A connection without a sandbox is refused
//     (identify.go).
//  3. find the target: the name of a synthetic address, the host that the client names in
//     TLS or HTTP, or that of a CONNECT request (connection.go, peek.go, explicit.go).
//  4. judge: [openshell.dev/runtime/policy.Engine] decides before anything is resolved or
//     dialed (judge.go).
//  5. serve: the table of protocols.go says how. Bytes are forwarded as they are
//     (splice.go), or TLS is ended (tls.go) and each request takes the way of request.go:
//     identify, judge by the facts of an [Inspector], rewrite, carry, record.
//
// To use it, make a server, add a sandbox for each container, load its policy, and serve
// the listeners that the namespace's rules redirect connections to:
//
//	server := proxy.New(proxy.Config{Identity: identifier, Log: log})
//	sandbox, err := server.Add(proxy.SandboxConfig{Container: id, CA: authority, …})
//	err = sandbox.Load("policy.yaml", text, 1)
//	go server.Serve(ctx, listener)
//
// A sandbox denies everything until [Sandbox.Load] has succeeded. Later calls replace the
// policy and end what it no longer allows. [Server.View] answers DNS with the names of the
// asker's sandbox (package dns).
//
// What cannot be found out or judged is refused. What was judged is what is sent: a request
// is parsed once, put into one spelling and written anew.
//
// The package does not protect from what an allowed program does at an allowed endpoint. It
// does not redirect connections, keep itself running (package guard) or lock itself down
// (cmd/openshell-proxy).
package proxy
