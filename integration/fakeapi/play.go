// SPDX-License-Identifier: Apache-2.0

package fakeapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// Word is the text that the model looks for in the file; it occurs only there. Edited is
// its replacement.
const (
	Word   = "word-"
	Edited = "edited-"
)

var wordPattern = regexp.MustCompile(Word + `([0-9a-f]{16})`)

// act is the model's next action: a tool call or, without a tool, a text.
type act struct {
	tool string
	args map[string]any
	text string
}

// arguments returns the call's arguments as JSON, in the pieces in which they are streamed.
func (a *act) arguments() []string {
	text, err := json.Marshal(a.args)
	if err != nil {
		panic(err) // only our own literals are encoded
	}
	half := len(text) / 2
	return []string{string(text[:half]), string(text[half:])}
}

// way describes how an agent's tools perform the two steps of the task.
type way struct {
	reader, editor string
	read           func(file string) act
	edit           func(file, old, now string) act
}

func call(tool string, pairs ...any) act {
	a := act{tool: tool, args: map[string]any{}}
	for i := 0; i < len(pairs); i += 2 {
		a.args[pairs[i].(string)] = pairs[i+1]
	}
	return a
}

// tools returns a way that uses two tools. The names are those of their arguments: the
// file's in both, and those of the old and the new text.
func tools(reader, editor, file, old, now string, more ...any) way {
	return way{
		reader, editor,
		func(f string) act { return call(reader, file, f) },
		func(f, from, to string) act {
			return call(editor, append([]any{file, f, old, from, now, to}, more...)...)
		},
	}
}

// shell returns a way that uses a tool for commands. Before it reads the file, it prints
// the environment, as models do; from then on the whole environment is part of the
// conversation.
func shell(tool, argument string, more ...any) way {
	run := func(command string) act { return call(tool, append([]any{argument, command}, more...)...) }
	return way{
		tool, tool,
		func(file string) act { return run("env; cat " + file) },
		func(file, old, now string) act { return run("sed -i s/" + old + "/" + now + "/ " + file) },
	}
}

// ways are tried in turn: those of Claude Code, OpenCode, Gemini CLI and the SDKs, Copilot
// CLI, and Codex, and that of a model without an editor.
var ways = []way{
	shell("Bash", "command", "description", "do the task"),
	tools("read", "edit", "filePath", "oldString", "newString"),
	tools("read_file", "replace", "file_path", "old_string", "new_string", "instruction", "change the word"),
	tools("view", "edit", "path", "old_str", "new_str"),
	shell("exec_command", "cmd"),
	shell("shell_command", "command"),
	shell("bash", "command", "description", "do the task"),
}

// maxSteps ends a conversation that makes no progress.
const maxSteps = 20

// next returns the model's next action for a request that offers these tools. It depends
// only on the request.
func (a *answer) next(offered []string) act {
	found := wordPattern.FindStringSubmatch(string(a.h.Body))
	for _, w := range ways {
		switch {
		case !slices.Contains(offered, w.reader) || !slices.Contains(offered, w.editor) || len(a.s.Heard()) > maxSteps:
			continue
		case found == nil:
			return w.read(a.s.File)
		case !strings.Contains(string(a.h.Body), Edited+found[1]):
			return w.edit(a.s.File, found[0], Edited+found[1])
		}
		if a.s.Last != nil {
			a.s.last.Do(a.s.Last)
		}
		return act{text: "The file is changed."}
	}
	return act{text: "A task about a file."}
}
