// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/containerd/console"
	"github.com/urfave/cli/v2"
)

// TestAsk: at a terminal nothing is stored that nobody agreed to; where there is none,
// nobody is asked.
func TestAsk(t *testing.T) {
	var out bytes.Buffer
	c := cli.NewContext(&cli.App{Writer: &out}, nil, nil)
	stdin := os.Stdin
	t.Cleanup(func() { os.Stdin = stdin })

	_, slave, err := console.NewPty()
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	tty, err := os.OpenFile(slave, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	os.Stdin = tty
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "": false, "yy\n": false} {
		out.Reset()
		err := ask(c, bufio.NewReader(strings.NewReader(answer)))
		if (err == nil) != want || !strings.Contains(out.String(), "[y/N]") {
			t.Errorf("%q: error %v, printed %q", answer, err, out.String())
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stdin = null
	out.Reset()
	if err := ask(c, bufio.NewReader(strings.NewReader(""))); err != nil || out.Len() > 0 {
		t.Errorf("error %v, printed %q", err, out.String())
	}
}
