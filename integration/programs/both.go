// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// both runs c under runc, and then in a sandbox, or under runc again.
func (w *world) both(ctx context.Context, c *command) *result {
	return &result{Name: c.Name, command: c, Runc: w.side(ctx, c, false), Sandbox: w.side(ctx, c, !w.control)}
}

// side runs c in one place.
func (w *world) side(ctx context.Context, c *command, sandbox bool) (s side) {
	b, err := w.newContainer(ctx, c, sandbox)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, c.timeout())
		began := time.Now()
		err = b.run(ctx, &s)
		cancel()
		s.took(began)
		err = errors.Join(err, b.close())
	}
	if err != nil {
		s.Err = w.registries.mask(err.Error())
	}
	return s
}

// run runs the container's scripts.
func (b *container) run(ctx context.Context, s *side) error {
	defer b.delete()
	var open []*os.File
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(b.dir, name))
		if err != nil {
			return nil
		}
		open = append(open, f)
		return f
	}
	out, errs := create("stdout"), create("stderr")
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	if out == nil || errs == nil {
		return errors.New("make the files for the output")
	}
	var err error
	if len(b.c.Exec) == 0 {
		s.Status, err = b.invoke(ctx, b.runArgv(), out, errs)
	} else {
		s.Status, err = b.steps(ctx, out, errs)
	}
	if err != nil {
		return err
	}
	if b.c.Layer {
		b.delete()
		left, err := b.left()
		if err != nil {
			return err
		}
		if _, err := out.WriteString(left); err != nil {
			return err
		}
	}
	s.Output, s.Errors = b.text("stdout"), b.text("stderr")
	return nil
}

// steps starts the first process and runs the scripts beside it. It returns the
// last one's status, and writes the others'.
func (b *container) steps(ctx context.Context, out, errs *os.File) (status int, err error) {
	argv := append(b.runtime(), "run", "--detach", "--bundle", b.dir, b.id)
	// The first process keeps its output open after the command has ended.
	first, err := os.Create(filepath.Join(b.dir, "first"))
	if err != nil {
		return 0, err
	}
	defer first.Close()
	if status, err = b.invoke(ctx, argv, first, first); err != nil || status != 0 {
		fmt.Fprintf(errs, "start: status %d: %s\n", status, b.text("first"))
		return status, err
	}
	scripts := b.c.Exec
	if !b.sandbox && len(b.c.RuncExec) > 0 {
		scripts = b.c.RuncExec
	}
	for i, script := range scripts {
		if i > 0 {
			fmt.Fprintf(out, "status %d\n", status)
		}
		if status, err = b.invoke(ctx, b.execArgv(script), out, errs); err != nil || status == statusTimeout {
			break
		}
	}
	return status, err
}

// maxOutput bounds the text that is read of one stream, in bytes.
const maxOutput = 1 << 20

// text returns the text of a file of the bundle. It masks the container's ID and
// address and the registries.
func (b *container) text(name string) string {
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		return err.Error()
	}
	text := strings.ToValidUTF8(string(data[:min(len(data), maxOutput)]), "?")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, b.id, "CONTAINER")
	if b.addr.IsValid() {
		text = strings.ReplaceAll(text, b.addr.String(), "ADDRESS")
	}
	return b.w.registries.mask(text)
}
