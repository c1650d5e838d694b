// SPDX-License-Identifier: Apache-2.0

package container

import (
	"io"
	"strings"

	"github.com/sirupsen/logrus"
)

// Log sets where libcontainer's own lines go, and how: runc's text, or one JSON
// object a line. What its processes say inside comes the same way.
func Log(w io.Writer, json, debug bool) {
	var f logrus.Formatter = &logrus.TextFormatter{}
	if json {
		f = &logrus.JSONFormatter{}
	}
	logrus.SetFormatter(quiet{f})
	logrus.SetOutput(w)
	if debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
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
