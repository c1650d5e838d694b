// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package seccomp

import "testing"

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

func TestCompileFitsTheKernel(t *testing.T) {
	prog, err := Compile(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(prog) == 0 || len(prog)%8 != 0 || len(prog)/8 > maxInstructions {
		t.Errorf("program of %d bytes", len(prog))
	}
	t.Logf("%d instructions", len(prog)/8)
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
