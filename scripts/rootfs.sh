#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the Debian root filesystem that the tests run real clients in, and prints
# where it is. It is made once: later runs find it.
#
# Mirror, suite and certificates are this machine's own.
set -eu

[ "$(id -u)" = 0 ] || { echo "rootfs: needs root" >&2; exit 1; }
packages='ca-certificates curl git gnupg nodejs npm python3'
cache=${OPENSHELL_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/openshell-test}
# How it is made names it: another way makes another one.
dir=$cache/debian-bookworm-$(cksum <"$0" | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
work=$dir.part
umount "$work/proc" 2>/dev/null || true
rm -rf --one-file-system "$work"
# The first mirror apt uses here.
mirror=$(apt-get update --print-uris | sed -n "s#^'\(.*\)/dists/bookworm/InRelease'.*#\1#p" | head -n 1)
debootstrap --variant=minbase bookworm "$work" "$mirror" >&2
cp /etc/resolv.conf "$work/etc/resolv.conf"
mount -t proc proc "$work/proc"
trap 'umount "$work/proc"' EXIT
for kind in doc man locale info; do
	echo "path-exclude=/usr/share/$kind/*"
	rm -rf "$work/usr/share/$kind"/*
done >"$work/etc/dpkg/dpkg.cfg.d/slim"
printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
chmod 755 "$work/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# shellcheck disable=SC2086 # a list of words
chroot "$work" apt-get install -y -qq --no-install-recommends $packages >&2
chroot "$work" apt-get clean
rm -rf "$work/var/lib/apt/lists"/* "$work/usr/sbin/policy-rc.d"
umount "$work/proc"
trap - EXIT
mv "$work" "$dir"
echo "$dir"
