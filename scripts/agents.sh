#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the agents and SDKs that the tests run, by npm's own client, and prints
# the folder: it is what /usr/local of an image with node is, to be mounted there.
# It is made once: later runs find it.
#
#   scripts/agents.sh [sdks]    sdks: node and the SDKs alone
#
# The registry is the one that this machine's npm is configured for.
set -eu

node=22.23.3
sdks='openai@7.57.0 @anthropic-ai/sdk@1.14.0'
agents='@anthropic-ai/claude-code@2.1.332 @openai/codex@0.169.0 opencode-ai@1.18.33 @github/copilot@1.0.102 @google/gemini-cli@0.61.0'

command -v npm >/dev/null || { echo "agents: npm is not installed" >&2; exit 1; }
case $(uname -m) in
x86_64) arch=x64 ;;
aarch64) arch=arm64 ;;
*) echo "agents: npm has no node for $(uname -m)" >&2; exit 1 ;;
esac
kind=${1:-agents}
packages=$sdks
[ "$kind" = sdks ] || packages="$sdks $agents"

cache=${OPENSHELL_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/openshell-test}
# How it is made names it: another way makes another one.
dir=$cache/$kind-$(cksum <"$0" | cut -d' ' -f1)
mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
work=$dir.part
rm -rf "$work"
mkdir -p "$work"
install() { npm install --global --prefix "$work" --no-fund --no-audit --no-update-notifier --loglevel error "$@" >&2; }
install "node-linux-$arch@$node"
mkdir -p "$work/bin"
ln -f "$work/lib/node_modules/node-linux-$arch/bin/node" "$work/bin/node"
# Their install scripts want the node that they will run with.
export PATH="$work/bin:$PATH"
# shellcheck disable=SC2086 # a list of words
install $packages
mv "$work" "$dir"
echo "$dir"
