#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the tests of packages and prints what failed, what was skipped and why, and
# the counts; all of it is in LOG.
#
#   scripts/test.sh LOG PACKAGE...
set -u

log=$1
shift
# The first run makes a Debian root filesystem.
go test -p 2 -timeout 20m -count=1 -tags seccomp -v "$@" >"$log" 2>&1
status=$?
count() { grep -cE "^ *--- $1" "$log"; }
grep -E '^(ok|FAIL|panic)' "$log"
grep -E -A3 '^ *--- (FAIL|SKIP)' "$log"
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
exit "$status"
