#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what building and testing need and this machine lacks, by the names
# of Debian's packages. With the argument kernels, also what scripts/kernel.sh
# needs; with bats, what runc's own test suite does.
set -eu

missing=
need() { # need PACKAGE TEST...: PACKAGE is missing if TEST fails
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
need make command -v make
need gcc command -v gcc
need libc6-dev test -f /usr/include/stdio.h
need pkg-config command -v pkg-config
need libseccomp-dev pkg-config --exists libseccomp
need docker.io command -v dockerd
need iptables command -v iptables
need debootstrap command -v debootstrap
need gpgv command -v gpgv
need procps command -v ps
need curl command -v curl
need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
if [ "${1-}" = kernels ]; then
	need qemu-system-x86 command -v qemu-system-x86_64
	need busybox-static sh -c 'b=$(command -v busybox) && ! ldd "$b"'
	need kmod test -x /sbin/depmod
	need cpio command -v cpio
fi
if [ "${1-}" = bats ]; then
	need bats command -v bats
	need gawk command -v gawk
	need jq command -v jq
	need xz-utils command -v xz
	need busybox-static sh -c 'b=$(command -v busybox) && ! ldd "$b"'
	need sshfs command -v sshfs
	need uidmap command -v newuidmap
fi

command -v go >/dev/null || { echo "setup: Go is needed (go.mod names the version)" >&2; exit 1; }
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "setup: as root, install:$missing" >&2; exit 1; }
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing
