// SPDX-License-Identifier: Apache-2.0

package container

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBypass_B94_NotifySocketOfALongName: the folder's path may be longer than the address
// of a socket.
func TestBypass_B94_NotifySocketOfALongName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := (&Container{notifyDir: dir}).listen("/run/manager.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	st, err := os.Stat(filepath.Join(dir, NotifySocket))
	if err != nil || st.Mode() != os.ModeSocket|0o777 {
		t.Fatalf("%v, %v", st, err)
	}
	t.Chdir(dir)
	c, err := net.Dial("unixgram", NotifySocket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	if k, err := n.conn.Read(got); err != nil || string(got[:k]) != "READY=1" {
		t.Errorf("%q, %v", got, err)
	}
}
