#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs runc's own test suite against the runtime in BIN and compares the results with the
# known failures: a new failure fails the run, and so does a known one that passes.
#
#   runc-bats.sh none     plain runc behaviour, as the operator configured
#   runc-bats.sh sandbox  every container is a sandbox, under a policy that allows
#                         every file and an operator who accepts every field
#
# FILES names some of the suite's files; then only their tests are compared.
# RUNC is runc's source (default: the module that go.mod names). WORK is kept
# between runs. Needs root, a Go toolchain and Debian's bats, gawk, jq, xz-utils,
# busybox-static, debootstrap, sshfs, uidmap and criu if checkpoints are to run.
set -euo pipefail

mode=${1:?usage: runc-bats.sh none|sandbox}
here=$(cd "$(dirname "$0")" && pwd)
BIN=$(cd "${BIN:-$here/../../bin}" && pwd)
WORK=${WORK:-/var/tmp/openshell-runc-bats}
known=$here/runc-bats-$mode.known
[ -f "$known" ] || { echo "runc-bats: no mode $mode" >&2; exit 1; }

for tool in bats gawk jq busybox debootstrap script; do
	command -v $tool >/dev/null || { echo "runc-bats: $tool is needed" >&2; exit 1; }
done
runc=${RUNC:-$(cd "$here" && go list -m -f '{{.Dir}}' github.com/opencontainers/runc)}
suite=$WORK/$(basename "$runc")
tests=$suite/tests/integration

if [ ! -f "$suite/.ready" ]; then
	rm -rf "$suite"
	mkdir -p "$WORK"
	cp -r "$runc" "$suite"
	chmod -R u+w "$suite"
	find "$suite/tests" -name '*.sh' -exec chmod +x {} + # a module has no modes
	mkdir -p "$suite/tests/cmd/_bin"
	for p in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs key_label; do
		(cd "$suite" && go build -tags seccomp -buildvcs=false -o tests/cmd/_bin "./tests/cmd/$p")
	done
	arch=$(go env GOARCH)
	"$here/busybox-image.sh" "$tests/testdata/busybox-$arch.tar.xz"
	debian=$(mktemp -d)
	debootstrap --variant=minbase bookworm "$debian" >"$WORK/debootstrap.log"
	chmod 755 "$debian"
	tar -C "$debian" --exclude=./var/cache/apt --exclude=./usr/share/doc -cf "$tests/testdata/debian-$arch.tar.xz" .
	rm -rf "$debian"
	touch "$suite/.ready"
fi

# The name matters: the suite looks for it in the runtime's output.
wrapper=$WORK/$mode/openshell-runtime
mkdir -p "$WORK/$mode"
case $mode in
none) echo 'policy: none' ;;
sandbox) echo "policy: $here/permissive.yaml
allow: [linux.namespaces.pid, linux.namespaces.ipc, linux.namespaces.mount, mounts, root.path, linux.sysctl, linux.resources.devices, linux.maskedPaths, linux.readonlyPaths, hooks.startContainer]" ;;
esac >"$WORK/$mode/config.yaml"
printf '#!/bin/sh\nexec %s/openshell-runtime --config %s "$@"\n' "$BIN" "$WORK/$mode/config.yaml" >"$wrapper"
chmod +x "$wrapper"

cd "$tests"
files=${FILES:-$(echo *.bats)}
# The suite wants a terminal; its results are TAP.
RUNC=$wrapper nice script -qec "bats -t $files" "$WORK/$mode/typescript" </dev/null >/dev/null || true
tr -d '\r' <"$WORK/$mode/typescript" >"$WORK/$mode/tap"

exec gawk -v all="${FILES:-all}" -f "$here/compare.awk" "$known" "$WORK/$mode/tap"
