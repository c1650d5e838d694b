#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the kernel's tests on another kernel: Debian's for clouds, in qemu without
# KVM, from an initramfs that holds the built programs and the tests. It is a
# machine with cgroup v2 alone and whatever Landlock its kernel has.
#
#   scripts/kernel.sh [TEST-PATTERN]
#
# The kernel is the package KERNEL; needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."

KERNEL=${KERNEL:-linux-image-cloud-amd64}
MEMORY=${MEMORY:-3G}
PATIENCE=${PATIENCE:-1500} # seconds for everything
pattern=${1:-.}
# What asks nothing of a kernel and needs more than is brought along: the documents,
# and the search of a container for keys, which is for the agents from npm.
elsewhere='^(TestDocumentedCommands|TestSearchFindsKeys)$'

scripts/setup.sh kernels
work=build/kernel
root=$work/root
log=$work/console.log
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,lib,lib64,usr/bin,etc,proc,sys,dev,run,tmp,root,var,suite/bin} "$work/deb"

# The kernel and its modules; the package without a version depends on the one.
package=$(apt-cache depends "$KERNEL" | awk '/Depends: linux-image-/ { print $2; exit }')
package=${package:-$KERNEL}
if ! [ -e "$work/deb/$package" ]; then
	rm -rf "${work:?}/deb"
	mkdir -p "$work/deb/$package.part"
	(cd "$work/deb" && { apt-get download -qq "$package" || { apt-get update -qq && apt-get download -qq "$package"; }; })
	dpkg -x "$work"/deb/"$package"_*.deb "$work/deb/$package.part"
	mv "$work/deb/$package.part" "$work/deb/$package"
fi
vmlinuz=$(echo "$work/deb/$package"/boot/vmlinuz-*)
version=${vmlinuz##*/vmlinuz-}
from=$work/deb/$package/lib/modules/$version
to=$root/lib/modules/$version
mkdir -p "$to/kernel/drivers" "$to/kernel/fs"
cp -r "$from"/modules.{builtin,builtin.modinfo,order} "$to/"
cp -r "$from"/kernel/{net,lib,crypto} "$to/kernel/"
cp -r "$from/kernel/drivers/net" "$to/kernel/drivers/"
cp -r "$from/kernel/fs/overlayfs" "$to/kernel/fs/"
PATH=$PATH:/usr/sbin:/sbin depmod -b "$root" "$version"

# The programs, without a library that the other machine would need.
make -s static BIN="$root/suite/bin"
flags=(-trimpath -ldflags '-s -w')
CGO_ENABLED=0 go build "${flags[@]}" -o "$root/suite/bin/" ./integration/probe ./integration/demo/...
# All tests that ask something of a kernel and nothing of Go: those of the pure
# packages pass everywhere, and their clocks do not suit an emulated machine. What
# imports runc builds with cgo alone.
packages=$(CGO_ENABLED=0 go list -f '{{if .TestGoFiles}}{{.ImportPath}}{{end}}' ./... |
	sed 's,^openshell.dev/runtime/*,,' |
	grep -vE '^($|policy|cmd/openshell-runtime|libsandbox(/(container|plan|landlock|seccomp))?|internal/testenv|integration/middleware|proxy(/(inspect|middleware))?)$')
for p in $packages; do
	mkdir -p "$root/suite/$p"
	CGO_ENABLED=0 go test -c "${flags[@]}" -o "$root/suite/$p/tests" "./$p"
	[ -d "$p/testdata" ] && cp -r "$p/testdata" "$root/suite/$p/"
done
mkdir -p "$root/suite/integration/demo"
cp integration/demo/policy.yaml "$root/suite/integration/demo/"
# Tests that look beside their sources look here: that is what trimmed programs call it.
mkdir -p "$root/suite/integration/openshell.dev/runtime/docs"
cp docs/middleware.proto "$root/suite/integration/openshell.dev/runtime/docs/"

# A system: busybox, and bash and curl as dynamically linked programs to run.
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(command -v ldd)" "$root/usr/bin/ldd"
for p in bash curl; do
	cp "$(command -v $p)" "$root/bin/$p"
	ldd "$root/bin/$p" | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$root/$(dirname "$library")"
		cp -L "$library" "$root/$library"
	done
done
ln -s /bin/curl "$root/usr/bin/curl"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
: >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
cat >"$root/suite/start" <<START
#!/bin/sh
# In a tmpfs, because the first root cannot be pivoted from.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
for c in \$(cat /sys/fs/cgroup/cgroup.controllers); do echo +\$c >/sys/fs/cgroup/cgroup.subtree_control; done
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root OPENSHELL_TEST_BIN=/suite/bin OPENSHELL_TEST_REQUIRE=root,cgroups
ip link set lo up
hostname kernel
mkdir -p /sys/fs/cgroup/tests && echo \$\$ >/sys/fs/cgroup/tests/cgroup.procs
echo "kernel \$(uname -r)"
/suite/bin/openshell doctor
for t in \$(cd /suite && find . -name tests | sort); do
	echo "=== SUITE \${t%/tests}"
	cd /suite/\${t%/tests} && ./tests -test.v -test.timeout=8m -test.run '$pattern' -test.skip '$elsewhere'
	echo "=== STATUS \$?"
done
echo '=== END'
poweroff -f
START
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o size=90% new /new
for d in /*; do [ "$d" = /new ] || /bin/busybox cp -a "$d" /new/; done
exec /bin/busybox switch_root /new /suite/start
INIT
for a in $(busybox --list); do
	[ -e "$root/bin/$a" ] || ln -s /bin/busybox "$root/bin/$a"
done
ln -sf /bin/busybox "$root/sbin/modprobe"
chmod +x "$root/init" "$root/suite/start"
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) | gzip -1 >"$work/initramfs"

status=0
timeout "$PATIENCE" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$MEMORY" -nodefaults -no-reboot -display none -serial stdio \
	-kernel "$vmlinuz" -initrd "$work/initramfs" -append 'console=ttyS0 quiet panic=-1 cgroup_no_v1=all' </dev/null |
	stdbuf -oL tr -d '\r' | tee "$log" | grep --line-buffered -E '^(=== (SUITE|STATUS|END)|kernel |ok|FAIL|panic)|^ *--- (FAIL|SKIP)' || status=$?
count() { grep -cE "^ *--- $1" "$log" || true; }
grep -E -A6 '^ *--- FAIL' "$log" || true
echo "$(sed -n 's/^kernel //p' "$log"): $(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped; all of it in $log"
grep -q '^=== END' "$log" || { echo 'kernel: the machine did not come to an end' >&2; exit 1; }
! grep -E '^=== STATUS' "$log" | grep -qv ' 0$' || exit 1
exit "$status"
