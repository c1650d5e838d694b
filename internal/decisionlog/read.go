// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Read yields the records of one file. A line that is not a record, because the disk was
// full or the proxy was killed, yields an error with its line number, and reading
// continues. An error of r ends it.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		br := bufio.NewReaderSize(r, MaxLine)
		for n := 1; ; n++ {
			text, err := br.ReadSlice('\n')
			long := false
			for errors.Is(err, bufio.ErrBufferFull) {
				long = true
				_, err = br.ReadSlice('\n')
			}
			if err != nil && err != io.EOF {
				yield(Record{}, fmt.Errorf("read the log of decisions: %w", err))
				return
			}
			if len(text) > 0 {
				if rec, bad := parse(text, long); !yield(rec, inLine(n, bad)) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}

func parse(text []byte, long bool) (Record, error) {
	if long {
		return Record{}, fmt.Errorf("longer than %d bytes", MaxLine)
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, err
	}
	if r.Seq == 0 {
		return Record{}, errors.New("no seq: not a decision")
	}
	return r, nil
}

func inLine(n int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("log of decisions, line %d: %w", n, err)
}
