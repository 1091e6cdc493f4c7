#!/bin/bash
# Measures what a second plan costs when nothing has changed: how long rhizome
# takes to name the content of a FreeBSD source tree. Prints a Markdown table of
# milliseconds beside "git status" on the same checkout.
#
#   bench/freebsd.sh                 # the fixture tree
#   bench/freebsd.sh /usr/src        # a full tree that is a git checkout, too
#
# Needs: go, git.
set -euo pipefail
cd "$(dirname "$0")/.."

figure() { # figure NAME: milliseconds of a benchmark's line on stdin
	awk -v n="$1" '$1 ~ n {printf "%.0f", $3 / 1e6; exit}'
}

second() { # second TREE: the two ways of naming it
	RHIZOME_FREEBSD_SRC=${1:-} go test ./stages/freebsd -run '^$' -bench SecondKey -benchtime 5x
}

echo "| tree | file by file, ms | through git, ms | git status, ms |"
echo "|---|---|---|---|"
out=$(second)
echo "| fixture | $(figure files <<<"$out") | $(figure checkout <<<"$out") | |"
if [ $# -gt 0 ]; then
	out=$(second "$1")
	git -C "$1" status --porcelain >/dev/null
	begun=$(date +%s%N)
	git -C "$1" status --porcelain >/dev/null
	echo "| $1 | $(figure files <<<"$out") | $(figure checkout <<<"$out") | $((($(date +%s%N) - begun) / 1000000)) |"
fi
