// SPDX-License-Identifier: Apache-2.0

// Command agent is the first process of the demo's sandbox. For each line that it reads, an
// argument vector in JSON, it runs that program and prints its output as one line of JSON.
// It ends when its input ends.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for in.More() {
		var args []string
		if err := in.Decode(&args); err != nil || len(args) == 0 {
			fmt.Fprintf(os.Stderr, "agent: no argument vector: %v\n", err)
			os.Exit(1)
		}
		// The status is ignored: the demo also shows refusals.
		said, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if len(said) == 0 && err != nil {
			said = []byte(err.Error())
		}
		if err := out.Encode(strings.TrimSpace(string(said))); err != nil {
			os.Exit(1)
		}
	}
}
