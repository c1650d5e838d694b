// SPDX-License-Identifier: Apache-2.0

package libsandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/libsandbox/plan"
)

// Where agents that use a person's keys for whoever asks have their sockets: the
// names of those, and of folders that have nothing but such.
var (
	agentNames   = []string{"agent.*", "openssh_agent", "ssh-agent*", "S.gpg-agent*"}
	agentFolders = []string{"ssh-*", "keyring", "gcr", "gnupg", ".gnupg", ".1password"}
)

// runtimeDirs has a folder of each user's sockets.
const runtimeDirs = "/run/user"

// sshAgents refuses bind mounts of folders in which an SSH agent listens, which
// would sign for the sandbox: sources sees a socket that is mounted by itself. The
// one that SSH_AUTH_SOCK names is found wherever it is.
func sshAgents(spec *specs.Spec, allow []string) error {
	const field = "mounts"
	if slices.Contains(allow, field) {
		return nil
	}
	named := ""
	for _, e := range spec.Process.Env {
		if v, ok := strings.CutPrefix(e, "SSH_AUTH_SOCK="); ok {
			named = path.Clean("/" + v)
		}
	}
	for i, m := range spec.Mounts {
		if !plan.IsBind(m) {
			continue
		}
		source, err := bindSource(m)
		if err != nil {
			continue // libcontainer says so, in runc's words
		}
		found := agentIn(source)
		if inside, ok := strings.CutPrefix(named, path.Clean("/"+m.Destination)+"/"); ok && found == "" {
			if st, err := os.Stat(filepath.Join(source, inside)); err == nil && st.Mode()&fs.ModeSocket != 0 {
				found = inside
			}
		}
		if found != "" {
			return &plan.Refusal{Field: field, Reason: fmt.Sprintf("mounts[%d] gives the sandbox %s, where an SSH agent listens (%s): it would use your keys for the sandbox", i, m.Source, found)}
		}
	}
	return nil
}

// agentIn is the socket of an agent in a folder or, where such have their own, one
// below it.
func agentIn(folder string) string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "" // a file
	}
	own := is(agentFolders, filepath.Base(folder))
	for _, e := range entries {
		switch {
		case e.Type()&fs.ModeSocket != 0 && (own || is(agentNames, e.Name())):
			return e.Name()
		case e.IsDir() && (is(agentFolders, e.Name()) && !own || folder == runtimeDirs):
			if found := agentIn(filepath.Join(folder, e.Name())); found != "" {
				return filepath.Join(e.Name(), found)
			}
		}
	}
	return ""
}

func is(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}
