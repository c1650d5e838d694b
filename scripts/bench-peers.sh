#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the programs that the benchmark compares with: bench-peers.sh FOLDER. runc is
# built into FOLDER; the others are Debian's.
set -eu

"$(dirname "$0")/runc.sh" "$1"

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
