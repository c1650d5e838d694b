#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds runc into FOLDER, unless it is there: runc.sh FOLDER. Its source is the version
# of libcontainer in go.mod.
set -eu

[ ! -x "$1/runc" ] || exit 0
source=$(go list -m -f '{{.Dir}}' github.com/opencontainers/runc)
out=$(realpath "$1")/runc
cd "$source" && exec go build -mod=mod -buildvcs=false -tags seccomp -trimpath -ldflags '-s -w' -o "$out" .
