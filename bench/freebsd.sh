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

# The whole of a second build with nothing changed, on the fixture: no make runs.
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cp -r testdata/freebsd-src testdata/freebsd-llvm "$WORK/"
CGO_ENABLED=0 go build -o "$WORK/" ./cmd/rhizome
cat > "$WORK/fixture.yaml" <<RECIPE
version: 1
name: fixture
os: freebsd
arch: amd64
epoch: 2026-11-01T00:00:00Z
source: {src: {dir: $WORK/freebsd-src, toolchain: $WORK/freebsd-llvm/bin}}
stages: [{world: {}}, {distribution: {}}, {kernel: {config: GENERIC}}]
network: {subnet: 10.77.0.0/24, server: 10.77.0.1}
nodes: [{name: n1, mac: "52:54:00:77:01:01", address: 10.77.0.21}]
RECIPE
build() { XDG_CACHE_HOME=$WORK/cache "$WORK/rhizome" --store "$WORK/store" --quiet build "$WORK/fixture.yaml" | tail -n 1; }
first=$(build)
begun=$(date +%s%N)
second=$(build)
took=$((($(date +%s%N) - begun) / 1000000))
[ "$first" = "$second" ] || { echo "bench/freebsd.sh: $first became $second" >&2; exit 1; }
printf '\nA second build of the fixture with nothing changed: %d ms (wanted: under 1,000).\n' "$took"
