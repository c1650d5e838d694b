// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// report is the output of a run.
type report struct {
	Machine map[string]string `json:"machine"`
	Rows    []row             `json:"rows"`
}

// row is one number of one peer.
type row struct {
	What   string  `json:"what"`
	Who    string  `json:"who"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99,omitempty"`
	Unit   string  `json:"unit"`
	// Budget is empty if there is none.
	Budget string `json:"budget,omitempty"`
	OK     bool   `json:"ok,omitempty"`
}

// ours is the name of our programs in the table.
const ours = "openshell"

func (r *report) add(what, who string, median, p99 float64, unit string) *row {
	r.Rows = append(r.Rows, row{What: what, Who: who, Median: median, P99: p99, Unit: unit})
	return &r.Rows[len(r.Rows)-1]
}

// within records a budget and whether it is met.
func (r *row) within(ok bool, format string, a ...any) {
	r.OK, r.Budget = ok, fmt.Sprintf(format, a...)
}

// print writes the table, which is also valid Markdown.
func (r *report) print(w io.Writer) {
	for _, k := range []string{"cpu", "kernel", "go", "runc", "crun", "squid", "mitmproxy"} {
		if v := r.Machine[k]; v != "" {
			fmt.Fprintf(w, "%s: %s\n", k, v)
		}
	}
	cells := [][]string{{"what", "who", "median", "p99", "unit", "budget", ""}}
	last := ""
	for _, row := range r.Rows {
		what, verdict := row.What, ""
		if row.Budget != "" {
			verdict = "over"
			if row.OK {
				verdict = "ok"
			}
		}
		if what == last {
			what = ""
		}
		last = row.What
		cells = append(cells, []string{what, row.Who, number(row.Median), number(row.P99), row.Unit, row.Budget, verdict})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	fmt.Fprintln(w)
	for n, line := range cells {
		for i, c := range line {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", widths[i]-len([]rune(c))))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprint(w, "|", strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// quantile sorts values and returns the quantile q.
func quantile[T cmp.Ordered](values []T, q float64) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

// machine describes the machine without its name.
func machine(runc string) map[string]string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	m := map[string]string{
		"kernel": string(bytes.TrimRight(u.Release[:], "\x00")), "go": runtime.Version(),
		"cpu": fmt.Sprintf("%d × unknown", runtime.NumCPU()),
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(b), "model name"); ok {
			name, _, _ := strings.Cut(after, "\n")
			m["cpu"] = fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimLeft(name, "\t :"))
		}
	}
	for name, argv := range map[string][]string{
		"runc": {runc, "--version"}, "crun": {"crun", "--version"}, "squid": {"squid", "-v"}, "mitmproxy": {"mitmdump", "--version"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			fields := strings.Fields(first)
			m[name] = fields[len(fields)-1]
		}
	}
	return m
}

// processes returns the pids whose arguments satisfy match, and with their descendants if
// with is true.
func processes(match func(argv []string) bool) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil && match(strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}
