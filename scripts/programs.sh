#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the root filesystem of `make test-programs` and prints its folder:
#
#   rootfs/   the Debian of rootfs.sh with the programs that the commands run
#   tls/      a test CA, which rootfs/ trusts, and the server certificate that it signed
#
# It is made once (2.5 GB): later runs find it. The mirror and the registry are those
# that this machine's apt and npm are configured for.
set -eu

[ "$(id -u)" = 0 ] || { echo "programs: needs root" >&2; exit 1; }
for tool in npm openssl; do
	command -v $tool >/dev/null || { echo "programs: $tool is not installed" >&2; exit 1; }
done

# What people install into images, by kind.
servers='nginx-light postgresql redis-server mariadb-server openssh-server memcached rsync cron'
languages='gcc g++ make perl libwww-perl liblwp-protocol-https-perl ruby openjdk-17-jdk-headless php-cli php-curl python3-venv python3-requests lua5.4'
debuggers='gdb strace ltrace lsof procps psmisc'
clients='openssh-client redis-tools wget openssl sqlite3 socat netcat-openbsd dnsutils iproute2 iputils-ping nghttp2-client libnss3-tools'
tools='sudo passwd adduser util-linux bsdextrautils tmux bzip2 xz-utils zstd zip unzip jq gawk bc file inotify-tools busybox libcap2-bin expect dpkg-dev fakeroot'
browsers='chromium'
# The last axios that sends https URLs in absolute form to a proxy.
npm='axios@0.18.1'

here=$(cd "$(dirname "$0")" && pwd)
base=$("$here/rootfs.sh")
cache=${OPENSHELL_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/openshell-test}
# How it is made names it: another way makes another one.
dir=$cache/programs-$(cat "$0" "$here/rootfs.sh" | cksum | cut -d' ' -f1)
exec 9>"$dir.lock"
flock 9
if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
work=$dir.part
root=$work/rootfs
umount "$root/proc" "$root/usr/local/go" 2>/dev/null || true
rm -rf --one-file-system "$work"
mkdir -p "$work/tls"
cp -a "$base" "$root"

# A CA for ten years, and one certificate for all names of the test network.
cd "$work/tls"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=Programs Test CA' -keyout ca.key -out ca.pem \
	-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
for name in server client; do
	openssl req -newkey rsa:2048 -nodes -subj "/CN=$name.test" -keyout $name.key -out $name.csr 2>/dev/null
	printf 'subjectAltName=DNS:rest.test,DNS:plain.test,DNS:tcp.test,DNS:deadsix.test,DNS:deadfour.test\nextendedKeyUsage=%sAuth\nbasicConstraints=CA:FALSE\n' $name >$name.ext
	openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile $name.ext -out $name.pem 2>/dev/null
	rm $name.csr $name.ext
done
mkdir -p "$root/usr/local/share/ca-certificates" "$root/etc/programs"
cp ca.pem "$root/usr/local/share/ca-certificates/programs.crt"
cp client.key client.pem "$root/etc/programs/"
cd /

mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot "$root" apt-get update -qq >&2
# shellcheck disable=SC2086 # lists of words
chroot "$root" apt-get install -y -qq --no-install-recommends $servers $languages $debuggers $clients $tools $browsers >&2
chroot "$root" apt-get clean
rm -rf "$root/var/lib/apt/lists"/* "$root/usr/sbin/policy-rc.d"
chroot "$root" update-ca-certificates >&2
# Browsers have a store of their own.
chroot "$root" sh -c 'mkdir -p /root/.pki/nssdb && certutil -d sql:/root/.pki/nssdb -N --empty-password &&
	certutil -d sql:/root/.pki/nssdb -A -t C,, -n programs -i /usr/local/share/ca-certificates/programs.crt' >&2
# Without the compiled standard library each use of go would take a minute.
go=$root/usr/local/go
mkdir -p "$go"
mount --bind "$(go env GOROOT)" "$go"
trap 'umount "$root/proc" "$go"' EXIT
chroot "$root" env HOME=/root CGO_ENABLED=0 GOTOOLCHAIN=local GOTELEMETRY=off /usr/local/go/bin/go build net/http testing >&2
umount "$root/proc" "$go"
trap - EXIT
npm install --prefix "$root/opt/npm" --no-fund --no-audit --no-update-notifier --loglevel error "$npm" >&2
rm -f "$root/opt/npm/package-lock.json" # it has the registry's address
mv "$work" "$dir"
echo "$dir"
