// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/policy"
)

func policyExplainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say which rule decides a request, or what to add to allow it; status 3 if it is denied",
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "host", Usage: "name or address to connect to"},
			&cli.UintFlag{Name: "port", Usage: "port to connect to"},
			&cli.StringFlag{Name: "binary", Usage: "path of the program in the container"},
			&cli.StringSliceFlag{Name: "ancestor", Usage: "path of a program that started it, nearest first; may be repeated"},
			&cli.StringFlag{Name: "method", Usage: "method of an HTTP request; without it the connection alone is judged"},
			&cli.StringFlag{Name: "path", Usage: "path of the HTTP request, with its query"},
			operatorFlag(), outputFlag(),
			&cli.BoolFlag{Name: "websocket", Usage: "the request begins a WebSocket or, with --method WEBSOCKET_TEXT, is a message on one"},
		},
		Action: explain,
	}
}

func explain(c *cli.Context) error {
	for _, name := range []string{"host", "port", "binary"} {
		if !c.IsSet(name) {
			return usage(c, "--"+name+" is needed")
		}
	}
	q := question{Host: c.String("host"), Port: uint16(c.Uint("port")), Binary: c.String("binary"), Ancestors: c.StringSlice("ancestor")}
	if c.Uint("port") == 0 || c.Uint("port") > 65535 {
		return usage(c, "--port must be 1 to 65535")
	}
	if c.Bool("websocket") && !c.IsSet("method") {
		return usage(c, "--websocket needs --method and --path")
	}
	if c.IsSet("method") != c.IsSet("path") {
		return usage(c, "--method and --path go together")
	}
	if c.IsSet("method") {
		path, query, _ := strings.Cut(c.String("path"), "?")
		q.HTTP = &httpPart{Method: c.String("method"), Path: path, Query: query, WebSocket: c.Bool("websocket")}
	}
	file, p, err := readPolicy(c)
	if err != nil {
		return err
	}
	e, o, err := compile(c, p)
	if err != nil {
		return err
	}
	d, r := judge(e, &q)
	x := explained{
		Decision: d.Verdict.String(), Layer: d.Layer.String(), Policy: d.Policy, Rule: d.Rule, Line: d.Line, Reason: d.Reason,
		Inspected: d.Verdict == policy.Allow && d.Layer == policy.L4 && d.Inspect,
	}
	if d.Verdict != policy.Deny {
		x.Credentials = treatment(&d.Credentials)
	}
	if d.Verdict != policy.Deny && r != nil {
		for _, m := range e.Middlewares(r.Host) {
			x.Middlewares = append(x.Middlewares, stage{m.Key, m.Uses, m.FailOpen})
		}
	}
	if d.Verdict != policy.Allow && r != nil {
		// A connection that is denied is so with whatever request comes on it.
		if q.HTTP != nil && r.HTTP == nil {
			r.HTTP = canonical(q.HTTP)
		}
		x.asked, x.blocked = true, d.Reason == policy.BlockedPort(q.Port)
		if change, ok := policy.Suggest(p, o, r); ok {
			x.Change = &addition{change.Where, change.Line, change.YAML}
		}
	}
	if wantsJSON(c) {
		err = printJSON(c, x)
	} else {
		x.print(c.App.Writer, file)
	}
	if err == nil && d.Verdict == policy.Deny {
		return cli.Exit("", exitProblems)
	}
	return err
}

// explained is a decision, why, and what would make another of it.
type explained struct {
	Decision string `json:"decision"`
	Layer    string `json:"layer"`
	Policy   string `json:"policy,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Line     int    `json:"line,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Credentials is what becomes of them in what is allowed.
	Credentials []string `json:"credentials,omitempty"`
	// Inspected connections are allowed, and each request on them is judged.
	Inspected bool `json:"inspected,omitempty"`
	// Middlewares are what its requests go through, in order.
	Middlewares []stage `json:"middlewares,omitempty"`
	// Change would allow it; nil if nothing would, or was asked for.
	Change *addition `json:"change,omitempty"`
	asked  bool
	// blocked is true if no policy can allow the port.
	blocked bool
}

// stage is a middleware of the policy.
type stage struct {
	Name     string `json:"name"`
	Uses     string `json:"middleware"`
	FailOpen bool   `json:"fail_open,omitempty"`
}

// addition is what to add to which list or mapping of the file.
type addition struct {
	Where string `json:"where"`
	Line  int    `json:"line,omitempty"`
	YAML  string `json:"yaml"`
}

// canonical is nil for a request that no policy could allow.
func canonical(h *httpPart) *policy.HTTP {
	path, err := policy.CanonicalPath(h.Path, true)
	if err != nil {
		return nil
	}
	return h.at(path)
}

func (x *explained) print(w io.Writer, file string) {
	fmt.Fprintf(w, "%s (%s)", x.Decision, x.Layer)
	if x.Reason != "" {
		fmt.Fprintf(w, ": %s", x.Reason)
	}
	fmt.Fprintln(w)
	if x.Policy != "" {
		fmt.Fprintf(w, "policy: %s\n", x.Policy)
	}
	if x.Rule != "" {
		fmt.Fprintf(w, "rule: %s (%s:%d)\n", x.Rule, file, x.Line)
	}
	for _, line := range x.Credentials {
		fmt.Fprintf(w, "credentials: %s\n", line)
	}
	if x.Inspected {
		fmt.Fprintln(w, "requests on it are judged one by one: give --method and --path")
	}
	for _, m := range x.Middlewares {
		fmt.Fprintf(w, "requests go through middleware %s (%s)", m.Name, m.Uses)
		if m.FailOpen {
			fmt.Fprint(w, ", or past it if it fails")
		}
		fmt.Fprintln(w)
	}
	if x.Decision == policy.Audit.String() {
		fmt.Fprintln(w, "it goes on and is recorded: the endpoint does not set enforcement: enforce")
	}
	switch change := x.Change; {
	case !x.asked:
	case x.blocked:
		fmt.Fprintln(w, "no policy can allow it: only the operator can open the port, by control_plane_ports in the configuration")
	case change == nil:
		fmt.Fprintln(w, "nothing that could be added allows it")
	default:
		fmt.Fprintf(w, "to allow it, add to %s", change.Where)
		if change.Line > 0 {
			fmt.Fprintf(w, " (line %d)", change.Line)
		}
		fmt.Fprintln(w, ":")
		for line := range strings.Lines(change.YAML) {
			fmt.Fprintf(w, "  %s", line)
		}
	}
}

// treatment is what becomes of credentials in what is allowed.
func treatment(c *policy.Credentials) (lines []string) {
	if c.Provider != "" {
		lines = append(lines, "only those of provider "+c.Provider)
	}
	if c.Signing != policy.SigningNone {
		region := c.Region
		if region == "" {
			region = "the host's region"
		}
		lines = append(lines, fmt.Sprintf("signed anew (%s) for %s in %s", c.Signing, c.Service, region))
	}
	if c.BodyRewrite {
		lines = append(lines, "put into the body")
	}
	if c.MessageRewrite {
		lines = append(lines, "put into WebSocket messages")
	}
	if c.AllowUninspected {
		lines = append(lines, "what cannot be searched for them passes")
	}
	if c.AllowUnsearched {
		lines = append(lines, "answers are not searched for them")
	}
	return lines
}
