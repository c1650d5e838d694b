// SPDX-License-Identifier: Apache-2.0

package container

import (
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/sirupsen/logrus"
)

// Formats of the log: runc's text and json, and plain for people.
const (
	FormatText  = "text"
	FormatJSON  = "json"
	FormatPlain = "plain"
)

// Log sets the destination and the format of libcontainer's log. Lines of libcontainer's
// processes in the container arrive there, too.
func Log(w io.Writer, format string, debug bool) {
	var f logrus.Formatter = &logrus.TextFormatter{}
	switch format {
	case FormatJSON:
		f = &logrus.JSONFormatter{}
	case FormatPlain:
		f = plain{}
	}
	logrus.SetFormatter(quiet{f})
	logrus.SetOutput(w)
	if debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
}

// Warn logs a warning: something that is no error but may not be intended.
func Warn(text string) { logrus.Warn(text) }

// plain is a formatter that writes the level and the message.
type plain struct{}

func (plain) Format(e *logrus.Entry) ([]byte, error) {
	return []byte(e.Level.String() + ": " + Plain(e.Message) + "\n"), nil
}

// Plain returns s with escapes in place of characters that are not printable, except for
// line feeds. s may have text of an image in it, which must not control the terminal.
func Plain(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			q := strconv.QuoteToGraphic(l)
			lines[i] = q[1 : len(q)-1]
		}
	}
	return strings.Join(lines, "\n")
}

// quiet drops libcontainer's warning that a hook which is a function cannot be kept in the
// state. The hook of [Config].CreateRuntime runs once, in the process that made it.
type quiet struct{ logrus.Formatter }

func (q quiet) Format(e *logrus.Entry) ([]byte, error) {
	if strings.HasPrefix(e.Message, "cannot serialize hook of type ") {
		return nil, nil
	}
	return q.Formatter.Format(e)
}
