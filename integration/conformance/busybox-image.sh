#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# busybox-image.sh FILE: creates a root filesystem of busybox like that of Docker's image.
set -eu

out=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root"
mkdir -p bin dev etc home lib root tmp usr/bin usr/sbin var/spool/mail
cp "$(command -v busybox)" bin/busybox
for applet in $(bin/busybox --list); do
	[ "$applet" = busybox ] || ln bin/busybox "bin/$applet"
done
ln -s ../../bin/env usr/bin/env
cat >etc/passwd <<END
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
END
cat >etc/group <<END
root:x:0:
daemon:x:1:
tty:x:5:
users:x:100:
nogroup:x:65534:
END
: >etc/shadow
chmod 755 . # mktemp made it 700
chmod 1777 tmp
chmod 700 root
tar -cf "$out" . # tar finds out for itself that this is not xz
