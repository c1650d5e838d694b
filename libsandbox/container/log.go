// SPDX-License-Identifier: Apache-2.0

package container

import (
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/sirupsen/logrus"
)

// Formats of the log: runc's two, and one for people.
const (
	FormatText  = "text"
	FormatJSON  = "json"
	FormatPlain = "plain"
)

// Log sets where libcontainer's own lines go, and in which format. What its
// processes say inside comes the same way.
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

// Warn logs what does not stop anything and may not be meant.
func Warn(text string) { logrus.Warn(text) }

// plain is the message and how grave it is.
type plain struct{}

func (plain) Format(e *logrus.Entry) ([]byte, error) {
	return []byte(e.Level.String() + ": " + Plain(e.Message) + "\n"), nil
}

// Plain is s with escapes for what is not printable, but for ends of lines: an
// image's words may be in it, and a terminal obeys them.
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

// quiet drops the warning that a hook which is a function cannot be kept in the
// state. It need not be: it runs once, in the process that made it.
type quiet struct{ logrus.Formatter }

func (q quiet) Format(e *logrus.Entry) ([]byte, error) {
	if strings.HasPrefix(e.Message, "cannot serialize hook of type ") {
		return nil, nil
	}
	return q.Formatter.Format(e)
}
