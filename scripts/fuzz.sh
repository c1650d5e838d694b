#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzzes every Fuzz function, one after the other, TIME each.
#
#   scripts/fuzz.sh TIME
set -eu

grep -rn --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file _ func; do
	name=${func#func }
	echo "$(dirname "$file") $name"
	go test -tags seccomp "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$1" </dev/null
done
