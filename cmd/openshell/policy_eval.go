// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/policy"
)

// maxEvalLine bounds one line of the input, in bytes.
const maxEvalLine = 64 << 10

func policyEvalCommand() *cli.Command {
	return &cli.Command{
		Name:      "eval",
		Usage:     "judge the requests on the input, one JSON object a line",
		ArgsUsage: "FILE",
		Description: `A request is {"id": 1, "host": "api.github.com", "port": 443, "binary": "/usr/bin/curl", "ancestors": ["/bin/bash"],
"http": {"method": "GET", "path": "/zen", "query": "a=b"}}; without http the connection alone is judged. With "websocket": true
in it the request begins a WebSocket or, with the method WEBSOCKET_TEXT, is a message on one. Of "headers": {"NAME": ["VALUE"]}
only those that override the method or the path count.
An answer is {"id": 1, "decision": "allow|deny|audit", "layer": "l4|l7", "policy": "KEY", "reason": "..."}, or {"id": 1, "error": "..."}
for a line that is no request.`,
		Flags: []cli.Flag{operatorFlag()},
		Action: func(c *cli.Context) error {
			_, p, err := readPolicy(c)
			if err != nil {
				return err
			}
			e, _, err := compile(c, p)
			if err != nil {
				return err
			}
			if err := evalLines(e, c.App.Reader, c.App.Writer); err != nil {
				return fmt.Errorf("%s: %w", c.Command.HelpName, err)
			}
			return nil
		},
	}
}

// answer is one line of the output.
type answer struct {
	ID       json.RawMessage `json:"id"`
	Decision string          `json:"decision"`
	Layer    string          `json:"layer"`
	Policy   string          `json:"policy"`
	Reason   string          `json:"reason"`
}

type lineError struct {
	ID    json.RawMessage `json:"id"`
	Error string          `json:"error"`
}

func evalLines(e *policy.Engine, in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, maxEvalLine+1)
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return w.Flush()
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLongLine) {
			return errors.Join(fmt.Errorf("read input: %w", err), w.Flush())
		}
		var reply any
		switch {
		case errors.Is(err, errLongLine):
			reply = lineError{Error: err.Error()}
		case len(bytes.TrimSpace(line)) == 0:
			continue
		default:
			reply = evalLine(e, line)
		}
		if err := enc.Encode(reply); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		// Whoever writes a line may wait for its answer.
		if lines.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write answer: %w", err)
			}
		}
	}
}

var errLongLine = fmt.Errorf("line is longer than %d bytes", maxEvalLine)

// readLine reads one line, valid until the next call; a long one is skipped.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLongLine
}

func evalLine(e *policy.Engine, line []byte) any {
	var id struct {
		ID json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(line, &id); err != nil {
		return lineError{Error: err.Error()}
	}
	var in struct {
		ID json.RawMessage `json:"id"`
		question
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return lineError{id.ID, err.Error()}
	}
	if in.Host == "" || in.Port == 0 {
		return lineError{id.ID, "host and port are needed"}
	}
	d, _ := judge(e, &in.question)
	return answer{id.ID, d.Verdict.String(), d.Layer.String(), d.Policy, d.Reason}
}
