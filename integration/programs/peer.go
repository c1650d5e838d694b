// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

//go:embed peer.sh
var peerScript string

//go:embed peer.py
var peerServers string

// peerTimeout bounds the start of the servers: two databases among them.
const peerTimeout = 2 * time.Minute

// peerCommand is the container with the servers of the test network.
var peerCommand = &command{Name: "peer", Network: networkTest, Run: peerScript}

// startPeer runs the servers under runc and returns their address.
func (w *world) startPeer(ctx context.Context) (addr netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	b, err := w.newContainer(ctx, peerCommand, false)
	if err != nil {
		return addr, err
	}
	w.ended = append(w.ended, b.close)
	if err := os.WriteFile(filepath.Join(b.rootfs(), "srv/peer.py"), []byte(peerServers), 0o644); err != nil {
		return addr, err
	}
	argv := b.runArgv()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	log, err := os.Create(filepath.Join(b.dir, "stderr"))
	if err != nil {
		return addr, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return addr, err
	}
	w.ended = append(w.ended, func() error {
		b.delete()
		_ = cmd.Wait() // it was killed
		return nil
	})
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			err = errors.New("they ended")
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return addr, fmt.Errorf("%w: %s", err, b.text("stderr"))
	}
	return b.addr, nil
}
