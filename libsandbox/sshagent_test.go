// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBypass_B71_AgentFolders: a folder in which an SSH agent listens is refused,
// and one with other sockets is not.
func TestBypass_B71_AgentFolders(t *testing.T) {
	root, err := os.MkdirTemp("", "a") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	listen := func(name string) string {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return file
	}
	for _, tc := range []struct{ name, socket, mount, env, refused string }{
		{"OpenSSH's folder", "ssh-XXab/agent.7", "ssh-XXab", "", "agent.7"},
		{"all temporary files", "t/ssh-XXab/agent.7", "t", "", "ssh-XXab/agent.7"},
		{"a keyring", "u/keyring/ssh", "u", "", "keyring/ssh"},
		{"GnuPG's", "h/.gnupg/S.gpg-agent.ssh", "h", "", ".gnupg/S.gpg-agent.ssh"},
		{"systemd's", "s/openssh_agent", "s", "", "openssh_agent"},
		{"one that the environment names", "p/deep/in/it", "p", "SSH_AUTH_SOCK=/at/deep/in/it", "deep/in/it"},
		{"another socket", "q/db.sock", "q", "SSH_AUTH_SOCK=/elsewhere/db.sock", ""},
		{"another folder's socket", "v/ssh-tools/lib/x", "v", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			listen(tc.socket)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(filepath.Join(root, tc.mount), link); err != nil {
				t.Fatal(err)
			}
			for _, source := range []string{filepath.Join(root, tc.mount), link} {
				spec := &specs.Spec{
					Process: &specs.Process{Env: []string{"A=b", tc.env}},
					Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/at", Type: "bind", Source: source}},
				}
				err := sshAgents(spec, nil)
				if tc.refused == "" && err != nil || tc.refused != "" && (err == nil || !strings.Contains(err.Error(), "("+tc.refused+")")) {
					t.Errorf("%s: %v, want %q", source, err, tc.refused)
				}
				if err := sshAgents(spec, []string{"mounts"}); err != nil {
					t.Errorf("allowed by name, and refused: %v", err)
				}
			}
		})
	}
}
