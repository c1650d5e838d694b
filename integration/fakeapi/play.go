// SPDX-License-Identifier: Apache-2.0

package fakeapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// Word is what the model looks for in the file: only there does it stand. Edited
// is what it makes of it.
const (
	Word   = "word-"
	Edited = "edited-"
)

var wordPattern = regexp.MustCompile(Word + `([0-9a-f]{16})`)

// act is what the model does next: it calls a tool or, without one, says text.
type act struct {
	tool string
	args map[string]any
	text string
}

// arguments are the call's as JSON, in pieces as they are streamed.
func (a *act) arguments() []string {
	text, err := json.Marshal(a.args)
	if err != nil {
		panic(err) // of our own literals
	}
	half := len(text) / 2
	return []string{string(text[:half]), string(text[half:])}
}

// way is how an agent's tools do the two steps of the task.
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

// tools is a way by two tools, with the names of their arguments: the file's of
// both, the old text's and the new one's.
func tools(reader, editor, file, old, now string, more ...any) way {
	return way{
		reader, editor,
		func(f string) act { return call(reader, file, f) },
		func(f, from, to string) act {
			return call(editor, append([]any{file, f, old, from, now, to}, more...)...)
		},
	}
}

// shell is a way by a tool that runs commands; before it reads, it looks around, as
// models do: all of the environment is in the conversation from then on.
func shell(tool, argument string, more ...any) way {
	run := func(command string) act { return call(tool, append([]any{argument, command}, more...)...) }
	return way{
		tool, tool,
		func(file string) act { return run("env; cat " + file) },
		func(file, old, now string) act { return run("sed -i s/" + old + "/" + now + "/ " + file) },
	}
}

// ways are tried in turn: Claude Code's, OpenCode's, Gemini CLI's and the SDKs',
// Copilot CLI's, Codex's, and that of a model that has no editor.
var ways = []way{
	shell("Bash", "command", "description", "do the task"),
	tools("read", "edit", "filePath", "oldString", "newString"),
	tools("read_file", "replace", "file_path", "old_string", "new_string", "instruction", "change the word"),
	tools("view", "edit", "path", "old_str", "new_str"),
	shell("exec_command", "cmd"),
	shell("shell_command", "command"),
	shell("bash", "command", "description", "do the task"),
}

// maxSteps ends a conversation that leads nowhere.
const maxSteps = 20

// next is what the model does about a request that offers tools. All that it knows
// is what the request says.
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
