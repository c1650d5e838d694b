// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The addresses of the peers.
const (
	relayAddress = "127.0.0.1:3127"
	squidAddress = "127.0.0.1:3128"
	mitmAddress  = "127.0.0.1:3129"
	ourAddress   = "127.0.0.1:15001" // inside the sandbox
)

const squidConfig = `http_port 127.0.0.1:3128 ssl-bump cert=%[1]s/squid-ca.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program /usr/lib/squid/security_file_certgen -s %[1]s/squid/ssl_db -M 4MB
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile=%[1]s/ca.pem
http_access allow all
cache deny all
access_log none
cache_log %[1]s/squid/cache.log
pid_filename none
coredump_dir %[1]s/squid
max_filedescriptors 65536
shutdown_lifetime 0 seconds
`

// peers starts every installed proxy, and agents that use them.
func (b *bench) peers() (_ map[string]*peer, stop func(), err error) {
	if err := b.upstream(); err != nil {
		return nil, nil, err
	}
	host, err := b.worker("/proc/self/exe", "agent")
	if err != nil {
		return nil, nil, err
	}
	relay, err := b.child(relayAddress, "/proc/self/exe", "relay", relayAddress)
	if err != nil {
		return nil, nil, err
	}
	out := map[string]*peer{
		direct: {name: direct, w: host},
		bare:   {name: bare, w: host, proxy: relayAddress, pids: []int{relay.Process.Pid}},
	}
	if p, err := b.squid(host); err == nil {
		out[squid] = p
	} else {
		fmt.Fprintf(os.Stderr, "bench: without squid: %v\n", err)
	}
	if p, err := b.mitmproxy(host); err == nil {
		out[mitm] = p
	} else {
		fmt.Fprintf(os.Stderr, "bench: without mitmproxy: %v\n", err)
	}
	p, end, err := b.sandbox(sandboxID)
	if err != nil {
		return nil, nil, err
	}
	out[ours] = p
	return out, func() {
		host.stop()
		end()
	}, nil
}

// sandbox starts a sandbox with an agent in it.
func (b *bench) sandbox(id string) (*peer, func(), error) {
	if err := b.upstream(); err != nil {
		return nil, nil, err
	}
	bundle, err := b.bundle("agent", "/bin/bench", "agent")
	if err != nil {
		return nil, nil, err
	}
	w, err := b.worker(append(b.runtime(), "run", "--bundle", bundle, id)...)
	if err != nil {
		return nil, nil, err
	}
	// When it answers, the sandbox and its proxy run.
	if _, err := w.do(job{Kind: kindHold, Name: inspectedName, Port: tlsPort, Proxy: ourAddress, Conns: 1}); err != nil {
		w.stop()
		return nil, nil, err
	}
	// The guard, the worker, and the standby, which starts a little later.
	var pids []int
	for deadline := time.Now().Add(5 * time.Second); len(pids) < 3 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		pids = processes(func(argv []string) bool {
			name := filepath.Base(argv[0])
			return (name == "openshell-proxy" || name == "openshell-standby") && slices.Contains(argv[1:], id)
		})
	}
	if len(pids) != 3 {
		w.stop()
		return nil, nil, fmt.Errorf("a sandbox has %d processes of a proxy", len(pids))
	}
	return &peer{name: ours, w: w, proxy: ourAddress, pids: pids}, w.stop, nil
}

func (b *bench) squid(w *worker) (*peer, error) {
	exe, err := exec.LookPath("squid")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "squid")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ca := filepath.Join(b.dir, "squid-ca.pem")
	for _, argv := range [][]string{
		{"openssl", "req", "-new", "-newkey", "rsa:2048", "-days", "2", "-nodes", "-x509", "-subj", "/CN=squid", "-keyout", ca, "-out", ca + ".crt"},
		{"sh", "-c", "cat " + ca + ".crt >> " + ca},
		{"/usr/lib/squid/security_file_certgen", "-c", "-s", filepath.Join(dir, "ssl_db"), "-M", "4MB"},
		{"chown", "-R", "proxy", dir, ca},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	config := filepath.Join(b.dir, "squid.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, squidConfig, b.dir), 0o644); err != nil {
		return nil, err
	}
	if _, err := b.child(squidAddress, exe, "-N", "-f", config); err != nil {
		return nil, err
	}
	return &peer{name: squid, w: w, proxy: squidAddress, pids: processes(func(argv []string) bool {
		return slices.Contains(argv, config)
	})}, nil
}

func (b *bench) mitmproxy(w *worker) (*peer, error) {
	exe, err := exec.LookPath("mitmdump")
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(mitmAddress, ":")
	dir := filepath.Join(b.dir, "mitm")
	cmd, err := b.child(mitmAddress, exe, "-q", "--listen-host", host, "--listen-port", port,
		"--set", "confdir="+dir, "--set", "ssl_verify_upstream_trusted_ca="+b.caFile())
	if err != nil {
		return nil, err
	}
	return &peer{name: mitm, w: w, proxy: mitmAddress, pids: []int{cmd.Process.Pid}}, nil
}
