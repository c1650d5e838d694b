// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// search looks through a live sandbox from outside: every process's environment,
// arguments and memory, and every file that the first process can see, but the
// kernel's and the npm programs'.
type search struct {
	// texts are looked for, by name, in any of their writings.
	texts map[string][][]byte
	// found says where, by the text's name.
	found map[string][]string
	// processes, resident and files are how much was searched; resident and files
	// in bytes.
	processes       int
	resident, files int64
	err             error
}

// where are the kinds of places that found names.
const (
	inEnvironment = "environment"
	inMemory      = "memory"
	inFile        = "file"
)

// writings of a key: as it is, in UTF-16 as JavaScript may keep it, in base64
// whatever is before it.
func writings(key string) [][]byte {
	wide := make([]byte, 0, 2*len(key))
	for _, u := range utf16.Encode([]rune(key)) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	out := [][]byte{[]byte(key), wide}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), key...))
		out = append(out, []byte(encoded[4:len(encoded)-4])) // without what its neighbours change
	}
	return out
}

func (s *search) look(kind, where string, data []byte) {
	for name, any := range s.texts {
		if slices.ContainsFunc(any, func(writing []byte) bool { return bytes.Contains(data, writing) }) {
			s.found[name] = append(s.found[name], kind+" "+where)
		}
	}
}

// has says whether a text was found in a kind of place.
func (s *search) has(name, kind string) bool {
	for _, f := range s.found[name] {
		if strings.HasPrefix(f, kind+" ") {
			return true
		}
	}
	return false
}

// sandbox searches the sandbox whose first process is init.
func (s *search) sandbox(init int) {
	s.found = map[string][]string{}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	if err != nil {
		s.err = err
		return
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	s.err = errors.Join(s.err, err)
	for _, dir := range all {
		if other, err := os.Readlink(dir + "/ns/pid"); err != nil || other != ns {
			continue // another's, or gone
		}
		s.processes++
		for _, f := range []string{"environ", "cmdline"} {
			if data, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				s.look(inEnvironment, filepath.Join(dir, f), data)
			}
		}
		s.memory(dir)
	}
	root := fmt.Sprintf("/proc/%d/root", init)
	s.err = errors.Join(s.err, filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		inside := strings.TrimPrefix(path, root)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // of a process at work
		case err != nil:
			return err
		case d.IsDir() && (inside == "/proc" || inside == "/sys" || inside == "/usr/local"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		s.files += int64(len(data))
		s.look(inFile, inside, data)
		return err
	}))
}

// memory searches what a process has in memory, which is what a core has of it.
func (s *search) memory(dir string) {
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return // gone
	}
	defer maps.Close()
	mem, err := os.Open(dir + "/mem")
	if err != nil {
		return
	}
	defer mem.Close()
	pages, err := os.Open(dir + "/pagemap")
	if err != nil {
		return
	}
	defer pages.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		bounds, rest, _ := strings.Cut(lines.Text(), " ")
		from, to, _ := strings.Cut(bounds, "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || !strings.HasPrefix(rest, "r") || start >= 1<<63 {
			continue
		}
		s.region(dir, mem, pages, int64(start), int64(end))
	}
}

// region searches the resident pages of a mapping, run by run.
func (s *search) region(dir string, mem, pages io.ReaderAt, start, end int64) {
	page := int64(os.Getpagesize())
	const entry, atOnce = 8, 1 << 16 // of pagemap
	var begun int64                  // of the run under way; 0 is none
	flush := func(upTo int64) {
		if begun != 0 {
			buf := make([]byte, upTo-begun)
			n, _ := mem.ReadAt(buf, begun) // the process is at work
			s.resident += int64(n)
			s.look(inMemory, dir, buf[:n])
		}
		begun = 0
	}
	table := make([]byte, entry*atOnce)
	for at := start; at < end; {
		n, _ := pages.ReadAt(table[:min(int64(len(table)), entry*(end-at)/page)], at/page*entry)
		if n < entry {
			break
		}
		for i := 0; i+entry <= n; i += entry {
			const presentOrSwapped = 3 << 62
			if resident := binary.LittleEndian.Uint64(table[i:])&presentOrSwapped != 0; !resident {
				flush(at)
			} else if begun == 0 {
				begun = at
			}
			at += page
		}
	}
	flush(end)
}

// searched searches the world's sandbox as it is now. Beside the key it looks for
// what must be found.
func (w *agentWorld) searched() *search {
	s := &search{texts: map[string][][]byte{
		"key": writings(w.real), "placeholder": {[]byte("openshell:resolve:env:")}, "router": {[]byte("openshell-router")}, "secret": {[]byte(w.secret)},
	}}
	out, err := w.runtime("state", w.name)
	var state struct{ Pid int }
	if s.err = errors.Join(err, json.Unmarshal([]byte(out), &state)); s.err == nil {
		s.sandbox(state.Pid)
	}
	return s
}

// The search finds a key wherever a sandbox has one, so that finding none means
// something.
func TestSearchFindsKeys(t *testing.T) {
	w := &agentWorld{world: newWorld(t, testPolicy), real: "sk-real-" + random(t), secret: random(t), name: "search-" + random(t)}
	forms := writings(w.real)
	for i, form := range forms {
		w.file(fmt.Sprintf("rootfs/tmp/%d", i), "it is "+string(form)+".")
	}
	bundle := w.bundle()
	w.edit(bundle, func(spec map[string]any) {
		spec["process"].(map[string]any)["env"] = []any{"KEY=" + w.real}
	})
	t.Cleanup(func() { _, _ = w.runtime("delete", "--force", w.name) })
	if out, err := w.runtime("run", "--detach", "--bundle", bundle, w.name); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	s := w.searched()
	if s.err != nil {
		t.Fatal(s.err)
	}
	if !s.has("key", inEnvironment) || !s.has("key", inMemory) {
		t.Errorf("the key was found in %q: not in the environment and the memory, where it is", s.found["key"])
	}
	for i := range forms {
		if file := fmt.Sprintf("%s /tmp/%d", inFile, i); !slices.Contains(s.found["key"], file) {
			t.Errorf("the key was not found in %s", file)
		}
	}
	if len(s.found["secret"]) > 0 {
		t.Errorf("what is nowhere was found in %q", s.found["secret"])
	}
}
