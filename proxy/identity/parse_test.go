// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseParent(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		want       int
		err        bool
	}{
		{"plain", "7 (sh) S 3 7 7 0 -1", 3, false},
		{"spaces and parentheses in the name", "7 (a) S 1 (b) S 3 7", 3, false},
		{"line break in the name", "7 (a\n8 (b) S 1) S 3 7", 3, false},
		{"no parent", "1 (init) S 0 1", 0, false},
		{"no name", "7 sh S 3", 0, true},
		{"cut off", "7 (sh) S", 0, true},
		{"negative", "7 (sh) S -3 7", 0, true},
		{"too large", "7 (sh) S 4294967297 7", 0, true},
		{"empty", "", 0, true},
	} {
		if got, err := parseParent([]byte(tc.line)); got != tc.want || (err != nil) != tc.err {
			t.Errorf("%s: %d, %v; want %d, error %v", tc.name, got, err, tc.want, tc.err)
		}
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add([]byte("7 (a) S 1 (b) S 3 7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ppid, err := parseParent(b)
		if ppid < 0 || err != nil && ppid != 0 {
			t.Errorf("%d, %v", ppid, err)
		}
		// Whatever a process calls itself, its parent stays its parent.
		line := slices.Concat([]byte("7 ("), b, []byte(") S 42 7 7 0 -1 4194560"))
		if ppid, err := parseParent(line); err != nil || ppid != 42 {
			t.Errorf("name %q: parent %d, %v", b, ppid, err)
		}
	})
}

func TestParseHierarchies(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		want       []hierarchy
		err        bool
	}{
		{"version 2", "0::/a/b\n", []hierarchy{{"", "/a/b"}}, false},
		{
			"hybrid", "5:cpu,cpuacct:/c\n4:memory:/m\n1:name=systemd:/s\n0::/u\n",
			[]hierarchy{{"", "/u"}, {"name=systemd", "/s"}, {"memory", "/m"}, {"cpu,cpuacct", "/c"}},
			false,
		},
		{"colons in the path", "0::/a:b:c\n", []hierarchy{{"", "/a:b:c"}}, false},
		{"empty", "", nil, false},
		{"no path", "0:\n", nil, true},
		{"relative path", "0::a\n", nil, true},
	} {
		got, err := parseHierarchies([]byte(tc.file))
		if !slices.Equal(got, tc.want) || (err != nil) != tc.err {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}

func FuzzParseHierarchies(f *testing.F) {
	f.Add([]byte("5:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := parseHierarchies(b)
		if err != nil && hs != nil {
			t.Errorf("%v with %v", hs, err)
		}
		for _, h := range hs {
			if !strings.HasPrefix(h.path, "/") {
				t.Errorf("path %q", h.path)
			}
		}
	})
}

func TestParsePids(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		want       int
		err        bool
	}{
		{"two", "1\n23\n", 2, false},
		{"twice the same", "5\n5\n", 1, false},
		{"none", "", 0, false},
		{"not visible from here", "0\n", 0, true},
		{"not a number", "x\n", 0, true},
		{"negative", "-4\n", 0, true},
	} {
		pids := map[int]bool{}
		if err := parsePids([]byte(tc.file), pids); len(pids) != tc.want || (err != nil) != tc.err {
			t.Errorf("%s: %v, %v", tc.name, pids, err)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, tc := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true},
	} {
		if below(tc.path, tc.dir) != tc.want {
			t.Errorf("below(%q, %q) is %v", tc.path, tc.dir, !tc.want)
		}
	}
}

// answer makes a sock_diag answer.
func answer(family, state byte, local, remote netip.AddrPort, inode uint32) []byte {
	b := make([]byte, sizeofDiagMsg)
	b[0], b[1] = family, state
	req := diagRequest(place{local, remote, 0})
	copy(b[offsetMsgID:], req[offsetReqID:])
	binary.NativeEndian.PutUint32(b[offsetInode:], inode)
	return b
}

func TestParseDiag(t *testing.T) {
	local, remote := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.0.0.1:443")
	for _, tc := range []struct {
		name string
		msg  []byte
		err  error
	}{
		{"established", answer(unix.AF_INET, 1, local, remote, 7), nil},
		{"connecting", answer(unix.AF_INET, 2, local, remote, 7), ErrNoSocket},
		{"time-wait", answer(unix.AF_INET, 6, local, remote, 0), ErrNoSocket},
		{"listening", answer(unix.AF_INET, 10, local, remote, 7), ErrNoSocket},
		{"no holder", answer(unix.AF_INET, 1, local, remote, 0), ErrNoSocket},
		{"another socket", answer(unix.AF_INET, 1, remote, local, 7), unix.ENOENT},
		{"another family", answer(unix.AF_INET6, 1, local, remote, 7), unix.ENOENT},
	} {
		got, err := parseDiag(tc.msg, local, remote)
		if !errors.Is(err, tc.err) || (err == nil) != (got.inode == 7) {
			t.Errorf("%s: %+v, %v; want %v", tc.name, got, err, tc.err)
		}
	}
	if _, err := parseDiag(make([]byte, sizeofDiagMsg-1), local, remote); err == nil {
		t.Error("a short answer is accepted")
	}
}

func FuzzParseDiag(f *testing.F) {
	local, remote := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.0.0.1:443")
	f.Add(answer(unix.AF_INET, 1, local, remote, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		if sock, err := parseDiag(b, local, remote); (err == nil) != (sock.inode != 0) {
			t.Errorf("%+v, %v", sock, err)
		}
	})
}

func TestReadAtIsBounded(t *testing.T) {
	path := t.TempDir() + "/f"
	for _, size := range []int{0, 1, 1023, 1024, 1025, 5000} {
		want := bytes.Repeat([]byte("x"), size)
		must(t, os.WriteFile(path, want, 0o600))
		if got, err := readAt(unix.AT_FDCWD, path, size); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
		if size == 0 {
			continue
		}
		if got, err := readAt(unix.AT_FDCWD, path, size-1); !errors.Is(err, errTooLong) || len(got) != size-1 {
			t.Errorf("%d bytes, one too many: %d, %v", size, len(got), err)
		}
	}
}
