// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.dev/runtime/internal/image"
)

// stageDir is where each run mounts its bundle. The mount is made in a mount
// namespace of the run's own, so every run uses the same folder, no other
// process sees it, and it is gone with the last process of the run, whatever
// killed it.
const stageDir = "/run/openshell/@stage"

// bundle is what a run is made of.
type bundle struct {
	// rootfs is a folder to read through, or image is unpacked.
	rootfs string
	image  *image.Image
	spec   *specs.Spec
	user   string
	hosts  string
}

// stage gives the calling thread a mount namespace of its own and lays the
// bundle out in it: config.json, and rootfs as an overlay on a tmpfs, or the
// image on the tmpfs itself.
//
// Preconditions: the calling goroutine is locked to its thread for good.
func (b *bundle) stage() error {
	// Users of the sandbox need these folders and the folders that the runtime makes for
	// mounts: the caller's umask must not close them.
	unix.Umask(0o022)
	if err := os.MkdirAll(stageDir, 0o700); err != nil {
		return fmt.Errorf("create %s: %w", stageDir, err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("create mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("openshell", stageDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711"); err != nil {
		return fmt.Errorf("mount ephemeral layer: %w", err)
	}
	rootfs := filepath.Join(stageDir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return fmt.Errorf("create ephemeral layer: %w", err)
	}
	if b.image != nil {
		if err := b.image.Unpack(rootfs); err != nil {
			return err
		}
	} else if err := overlay(b.rootfs, rootfs); err != nil {
		return err
	}
	if err := setUser(b.spec, rootfs, b.user); err != nil {
		return err
	}
	// An image's working directory need not be in its layers.
	cwd, err := securejoin.SecureJoin(rootfs, b.spec.Process.Cwd)
	if err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	if err := os.MkdirAll(cwd, 0o755); err != nil {
		return fmt.Errorf("create working directory: %w", err)
	}
	data, err := json.Marshal(b.spec)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	// Every name server is the policy's, whatever its address.
	files := map[string]string{"config.json": string(data), "hosts": b.hosts, "resolv.conf": "nameserver 127.0.0.1\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(stageDir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	return nil
}

// overlay mounts lower at target with an upper layer beside target.
func overlay(lower, target string) error {
	dirs := map[string]string{}
	for _, d := range []string{"upper", "work"} {
		dirs[d] = filepath.Join(stageDir, d)
		if err := os.Mkdir(dirs[d], 0o755); err != nil {
			return fmt.Errorf("create ephemeral layer: %w", err)
		}
	}
	// The lower directory is named through a descriptor: a path with ':' or ','
	// in it would otherwise be read as options.
	fd, err := unix.Open(lower, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open --rootfs %s: %w", lower, err)
	}
	defer unix.Close(fd)
	opts := fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=%s,workdir=%s", fd, dirs["upper"], dirs["work"])
	if err := unix.Mount("overlay", target, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay on --rootfs %s: %w", lower, err)
	}
	return nil
}
