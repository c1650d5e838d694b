#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes what the benchmark compares with: bench-peers.sh FOLDER. runc is built
# from the very version whose libcontainer we use; the others are Debian's.
set -eu

folder=$1
[ -x "$folder/runc" ] || {
	source=$(go list -m -f '{{.Dir}}' github.com/opencontainers/runc)
	out=$(realpath "$folder")/runc
	(cd "$source" && go build -mod=mod -buildvcs=false -tags seccomp -trimpath -ldflags '-s -w' -o "$out" .)
}

missing=
command -v crun >/dev/null || missing="$missing crun"
command -v mitmdump >/dev/null || missing="$missing mitmproxy"
[ -x /usr/lib/squid/security_file_certgen ] || missing="$missing squid-openssl"
[ -n "$missing" ] || exit 0
echo "bench: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing
