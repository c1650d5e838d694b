# SPDX-License-Identifier: Apache-2.0
# compare.awk KNOWN TAP: known failures are `test<TAB>reason`; a reason that
# starts with "sometimes" excuses a pass as well. With all=all the whole suite ran.

FNR == NR {
	if ($0 !~ /^#/ && NF) {
		split($0, part, "\t")
		if (part[2] == "") { print "no reason for: " part[1]; bad = 1 }
		known[part[1]] = part[2]
	}
	next
}
/^(not )?ok [0-9]+ / {
	line = $0
	failed = sub(/^not ok [0-9]+ /, "", line)
	sub(/^ok [0-9]+ /, "", line)
	skipped = sub(/ # skip.*/, "", line)
	sub(/ +$/, "", line)
	ran++
	seen[line]
	if (skipped) { skips++ }
	else if (failed && !(line in known)) { print "new failure: " line; bad = 1 }
	else if (failed) { fails++ }
	else if ((line in known) && known[line] !~ /^sometimes/) { print "no longer fails, remove it: " line; bad = 1 }
	else passes++
}
END {
	if (all == "all") for (t in known) if (!(t in seen)) { print "no such test, or it did not run: " t; bad = 1 }
	if (!ran) { print "no test ran"; bad = 1 }
	printf "%d tests: %d passed, %d failed as known, %d skipped\n", ran, passes, fails, skips
	exit bad
}
