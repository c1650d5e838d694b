// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"openshell.dev/runtime/integration/upstream"
	"openshell.dev/runtime/internal/registry"
)

//go:embed policy.yaml
var policyText string

// names are the names of the peer in the test network. policy.yaml has a different endpoint
// for each.
var names = []string{"rest.test", "plain.test", "tcp.test", "socket.test"}

// Names with some addresses that do not answer.
const (
	// deadSix has a dead IPv6 address and an address that answers.
	deadSix = "deadsix.test"
	// deadFour has three dead IPv4 addresses before an address that answers.
	deadFour = "deadfour.test"
)

// world is what all commands of a run share.
type world struct {
	options
	dir string
	// rootfs and tls come from scripts/programs.sh, small from scripts/rootfs.sh.
	rootfs, tls, small string
	goroot             string
	config             string
	up                 *upstream.Host
	registries         registries
	// started is the number of containers so far: each has its own number.
	started atomic.Int64
	// ended are functions that close calls in reverse order.
	ended []func() error
}

// registries are the addresses for which this machine's package clients are configured.
// Reports do not show them.
type registries struct {
	npm, goproxy *url.URL
	apt          []*url.URL
}

func newWorld(ctx context.Context, o options, chosen []*command) (_ *world, err error) {
	w := &world{options: o}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if w.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	if w.runc == "" {
		w.runc = filepath.Join(w.bin, "runc")
	}
	for _, program := range []string{w.runc, filepath.Join(w.bin, "openshell-runtime")} {
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("make test-programs builds it: %w", err)
		}
	}
	if w.dir, err = os.MkdirTemp("", "openshell-programs-"); err != nil {
		return nil, err
	}
	w.ended = append(w.ended, func() error { return os.RemoveAll(w.dir) })
	// Unprivileged users of the containers must be able to traverse the folder.
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return nil, err
	}
	w.config = filepath.Join(w.dir, "config.yaml")
	if err := os.WriteFile(w.config, []byte("log_dir: "+filepath.Join(w.dir, "log")+"\n"), 0o644); err != nil {
		return nil, err
	}
	if err := w.findImages(ctx); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(chosen, func(c *command) bool { return c.Network == networkRegistries }) {
		if err := w.findRegistries(ctx); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(chosen, func(c *command) bool { return c.Network == networkTest }) {
		if err := w.startNetwork(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for _, end := range slices.Backward(w.ended) {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "programs: clean up:", err)
		}
	}
}

// findImages makes the cached root filesystems, or finds them.
func (w *world) findImages(ctx context.Context) error {
	dir, err := ask(ctx, "scripts/programs.sh")
	if err == nil {
		w.rootfs, w.tls = filepath.Join(dir, "rootfs"), filepath.Join(dir, "tls")
		w.small, err = ask(ctx, "scripts/rootfs.sh")
	}
	if err == nil {
		w.goroot, err = ask(ctx, "go", "env", "GOROOT")
	}
	return err
}

// ask runs a program of this machine and returns the text that it prints.
func ask(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		tail := errors.Bytes()[max(0, errors.Len()-shown):]
		return "", fmt.Errorf("%s: %w\n%s", name, err, tail)
	}
	return strings.TrimSpace(string(out)), nil
}

// findRegistries asks the clients, and apt in the root filesystem, which has this machine's
// mirror.
func (w *world) findRegistries(ctx context.Context) error {
	for _, c := range registry.Clients() {
		var into **url.URL
		switch c.Name {
		case "npm":
			into = &w.registries.npm
		case "go":
			into = &w.registries.goproxy
		default:
			continue
		}
		urls, err := c.Registries(ctx)
		if err != nil {
			return err
		}
		*into = urls[0]
	}
	text, err := ask(ctx, "chroot", w.small, "apt-get", "update", "--print-uris")
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(text) {
		if quoted, ok := strings.CutPrefix(field, "'"); ok {
			u, err := url.Parse(strings.TrimSuffix(quoted, "'"))
			if err != nil || u.Hostname() == "" {
				return errors.New("apt is configured for something that is no URL")
			}
			w.registries.apt = append(w.registries.apt, u)
		}
	}
	if len(w.registries.apt) == 0 {
		return errors.New("apt is configured for no mirror")
	}
	return nil
}

func (r *registries) all() []*url.URL {
	if r.npm == nil {
		return nil
	}
	return append([]*url.URL{r.npm, r.goproxy}, r.apt...)
}

// policy adds an entry for the registries to the default policy.
func (r *registries) policy() string {
	var b strings.Builder
	b.WriteString(policyText + "  registries:\n    binaries: [{path: /**}]\n    endpoints:\n")
	var seen []string
	for _, u := range r.all() {
		if slices.Contains(seen, u.Host) {
			continue
		}
		seen = append(seen, u.Host)
		ports := u.Port()
		if ports == "" {
			ports = "80, 443"
		}
		fmt.Fprintf(&b, "      - {host: %q, ports: [%s], protocol: rest, enforcement: enforce, access: read-only}\n", u.Hostname(), ports)
	}
	return b.String()
}

// environment returns the variables that configure the registries of npm and go.
func (r *registries) environment() []string {
	if r.npm == nil {
		return nil
	}
	return []string{"npm_config_registry=" + r.npm.String(), "GOPROXY=" + r.goproxy.String()}
}

// mask replaces the registries' names in text.
func (r *registries) mask(text string) string {
	for _, u := range r.all() {
		text = strings.ReplaceAll(text, u.Host, "REGISTRY")
	}
	return text
}

// startNetwork makes the test network and the container that serves it.
func (w *world) startNetwork(ctx context.Context) (err error) {
	if w.up, err = upstream.Open(names...); err != nil {
		return err
	}
	w.ended = append(w.ended, w.up.Close)
	addr, err := w.startPeer(ctx)
	if err != nil {
		return fmt.Errorf("start the servers: %w", err)
	}
	for _, name := range names {
		w.up.Name(name, func(int) []netip.Addr { return []netip.Addr{addr} })
	}
	// No host has the addresses from .250 on. Those of the upstream's other link are last
	// in the order of the C library's getaddrinfo, and first in the answer.
	four, six := w.up.Addr.As4(), w.up.Inside6().As16()
	six[15] = 250
	w.up.Name(deadSix, func(int) []netip.Addr { return []netip.Addr{netip.AddrFrom16(six), addr} })
	var dead []netip.Addr
	for i := range byte(3) {
		four[3] = 250 + i
		dead = append(dead, netip.AddrFrom4(four))
	}
	w.up.Name(deadFour, func(int) []netip.Addr { return append(dead, addr) })
	return nil
}
