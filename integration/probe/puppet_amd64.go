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

// puppet starts a program as its traced child and makes it connect to address and send
// text, by system calls that it writes into the child's memory: the bytes are sent by a
// process of the other program. It prints the start of the response.
func puppet(program, address, text string) {
	runtime.LockOSThread() // only one thread can be the tracer
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

// traced is a process that is stopped at the start of its program.
type traced struct {
	pid  int
	regs unix.PtraceRegs
	// at is an address of memory below the stack.
	at  uint64
	err error
}

// begin waits until the process stops, and writes a system call instruction at the place
// where it continues.
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

// place writes data to the process's memory and returns its address.
func (p *traced) place(data []byte) uint64 {
	if p.err == nil {
		_, p.err = unix.PtracePokeData(p.pid, uintptr(p.at), data)
	}
	return p.at
}

// call makes the process execute a system call and returns the result.
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
