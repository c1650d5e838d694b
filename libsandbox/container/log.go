// SPDX-License-Identifier: Apache-2.0

package container

import (
	"io"
	"strings"

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
	return []byte(e.Level.String() + ": " + e.Message + "\n"), nil
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
