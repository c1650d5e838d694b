// SPDX-License-Identifier: Apache-2.0

package inference

// walker reads JSON as it passes by and tells its scalars by their path, in constant
// memory. It judges nothing: what is not JSON gives no or wrong scalars, never an
// error, because what passes is not changed by what is read of it.
type walker struct {
	// scalar is told of a string, without its quotes and cut off at maxScalar, or
	// of another scalar. Both slices are the walker's.
	scalar func(path, value []byte)
	// part, if set, is told of each part of a string as it comes.
	part func(path, part []byte)

	depth  int
	object [maxDepth]bool
	length [maxDepth]int // of the path outside of what is open
	path   []byte
	key    bool // the string that is read, or is next, is a key
	state  walkerState
	value  []byte
	closed bool // an outermost object or array has ended
}

type walkerState byte

const (
	between walkerState = iota
	inString
	inEscape
	inWord // a number, true, false or null
)

const (
	maxDepth  = 8 // deeper is passed over
	maxScalar = 64
	maxPath   = 160
)

func (w *walker) reset() {
	w.depth, w.path, w.key, w.state, w.value, w.closed = 0, w.path[:0], false, between, w.value[:0], false
}

func (w *walker) feed(p []byte) {
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch w.state {
		case inString:
			from := i
			for i < len(p) && p[i] != '"' && p[i] != '\\' {
				i++
			}
			w.take(p[from:i])
			if i == len(p) {
				return
			}
			if p[i] == '\\' {
				w.state = inEscape
			} else {
				w.endString()
			}
		case inEscape:
			if len(w.value)+2 <= maxScalar {
				w.value = append(w.value, '\\', c)
			}
			w.state = inString
		case inWord:
			switch c {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				w.emit()
				w.state = between
				w.structure(c)
			default:
				w.take(p[i : i+1])
			}
		default:
			w.structure(c)
		}
	}
}

func (w *walker) take(part []byte) {
	if w.part != nil && !w.key && w.state == inString && w.depth <= maxDepth {
		w.part(w.path, part)
	}
	if room := maxScalar - len(w.value); len(part) > room {
		part = part[:room]
	}
	w.value = append(w.value, part...)
}

func (w *walker) structure(c byte) {
	switch c {
	case '{', '[':
		w.open(c == '{')
	case '}', ']':
		w.close()
	case ',':
		w.key = w.inObject()
	case ':':
		w.key = false
	case '"':
		w.state, w.value = inString, w.value[:0]
	case ' ', '\t', '\r', '\n':
	default:
		w.state, w.value = inWord, append(w.value[:0], c)
	}
}

func (w *walker) inObject() bool {
	return w.depth > 0 && w.depth <= maxDepth && w.object[w.depth-1]
}

func (w *walker) open(object bool) {
	w.depth++
	w.key = object
	if w.depth > maxDepth {
		return
	}
	w.object[w.depth-1] = object
	w.length[w.depth-1] = len(w.path)
	if !object {
		w.path = append(w.path, "[]"...)
	}
}

func (w *walker) close() {
	if w.depth == 0 {
		return
	}
	if w.depth <= maxDepth {
		w.path = w.path[:w.length[w.depth-1]]
	}
	w.depth--
	w.key = false
	w.closed = w.closed || w.depth == 0
}

func (w *walker) endString() {
	w.state = between
	if !w.key {
		w.emit()
		return
	}
	w.key = false
	if !w.inObject() {
		return
	}
	w.path = w.path[:w.length[w.depth-1]]
	if len(w.path)+1+len(w.value) > maxPath {
		w.path = append(w.path, '?')
		return
	}
	if len(w.path) > 0 {
		w.path = append(w.path, '.')
	}
	w.path = append(w.path, w.value...)
}

func (w *walker) emit() {
	if w.depth <= maxDepth {
		w.scalar(w.path, w.value)
	}
}
