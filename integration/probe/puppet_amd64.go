// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// puppet starts a program as its traced child, and has that process connect to address
// and send text by system calls that are written into its memory: the bytes leave from
// a process of the other program. It prints the start of the answer.
func puppet(program, address, text string) {
	runtime.LockOSThread() // one thread is the tracer
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		report("", err)
	}
	cmd := exec.Command(program, "sleep", "10s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		report("", err)
	}
	p := &traced{pid: cmd.Process.Pid}
	if err := p.begin(); err != nil {
		report("", err)
	}
	sockaddr := binary.LittleEndian.AppendUint16(nil, unix.AF_INET)
	sockaddr = binary.BigEndian.AppendUint16(sockaddr, to.Port())
	sockaddr = append(sockaddr, to.Addr().AsSlice()...)
	sockaddr = append(sockaddr, make([]byte, 8)...)
	fd := p.call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	p.call(unix.SYS_CONNECT, fd, p.place(sockaddr), uint64(len(sockaddr)))
	p.call(unix.SYS_WRITE, fd, p.place([]byte(text)), uint64(len(text)))
	n := p.call(unix.SYS_READ, fd, p.at, 12)
	answer := make([]byte, n)
	if p.err == nil {
		_, p.err = unix.PtracePeekData(p.pid, uintptr(p.at), answer)
	}
	report(fmt.Sprintf("%q", answer), p.err)
}

// traced is a process that has stopped at the start of its program.
type traced struct {
	pid  int
	regs unix.PtraceRegs
	// at is memory below the stack.
	at  uint64
	err error
}

// begin waits until the process stops and writes a system call instruction where it
// goes on.
func (p *traced) begin() error {
	var status unix.WaitStatus
	if _, err := unix.Wait4(p.pid, &status, 0, nil); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("the program has not stopped: %x", status)
	}
	if err := unix.PtraceGetRegs(p.pid, &p.regs); err != nil {
		return err
	}
	p.at = p.regs.Rsp - 4096
	_, err := unix.PtracePokeText(p.pid, uintptr(p.regs.Rip), []byte{0x0f, 0x05})
	return err
}

// place writes data into the process's memory and returns where.
func (p *traced) place(data []byte) uint64 {
	if p.err == nil {
		_, p.err = unix.PtracePokeData(p.pid, uintptr(p.at), data)
	}
	return p.at
}

// call makes the process make a system call and returns its result.
func (p *traced) call(number, a, b, c uint64) uint64 {
	if p.err != nil {
		return 0
	}
	regs := p.regs
	regs.Rax, regs.Orig_rax, regs.Rdi, regs.Rsi, regs.Rdx = number, ^uint64(0), a, b, c
	var status unix.WaitStatus
	p.err = unix.PtraceSetRegs(p.pid, &regs)
	if p.err == nil {
		p.err = unix.PtraceSingleStep(p.pid)
	}
	if p.err == nil {
		_, p.err = unix.Wait4(p.pid, &status, 0, nil)
	}
	if p.err == nil {
		p.err = unix.PtraceGetRegs(p.pid, &regs)
	}
	if p.err == nil && !status.Stopped() {
		p.err = fmt.Errorf("system call %d: the program has ended: %x", number, status)
	}
	if p.err == nil && int64(regs.Rax) < 0 {
		p.err = fmt.Errorf("system call %d: %w", number, unix.Errno(-int64(regs.Rax)))
	}
	return regs.Rax
}
