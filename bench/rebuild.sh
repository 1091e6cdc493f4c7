#!/bin/bash
# How long a build takes that has nothing to do: a recipe is built once, and
# then again and again with nothing changed.
#
#   bench/rebuild.sh
#   RECIPE=cluster/web.yaml RUNS=20 bench/rebuild.sh
#
# With a lock file nothing outside the machine is asked; without one Debian is
# asked what it has today. The store is made for it and removed, unless STORE
# names one; the first build wants a Debian mirror and some minutes.
#
# Needs: go, mmdebstrap, hyperfine, jq.
set -euo pipefail
cd "$(dirname "$0")/.."

RECIPE=${RECIPE:-recipes/debian-demo.yaml}
RUNS=${RUNS:-10}

for tool in go mmdebstrap hyperfine jq; do
	command -v $tool >/dev/null || { echo "bench/rebuild.sh: $tool is missing (apt install mmdebstrap hyperfine jq)" >&2; exit 1; }
done

WORK=$(mktemp -d /var/tmp/rhizome-bench-rebuild-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
go build -o "$WORK/rhizome" ./cmd/rhizome
GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go build -o "$WORK/rhizome-node-linux-amd64" ./cmd/rhizome-node
STORE=$(readlink -f "${STORE:-$WORK/store}")
# The lock file goes beside a copy.
cp -r "$(dirname "$RECIPE")" "$WORK/recipe"
name=$(basename "$RECIPE")
cd "$WORK/recipe"
rm -f "${name%.yaml}.lock.yaml"
build=("$WORK/rhizome" build "$name" --store "$STORE" --quiet)

# again: how long the same build takes, as "wall cpu".
again() {
	hyperfine --warmup 1 --runs "$RUNS" --export-json "$WORK/times.json" "${build[*]}" >/dev/null 2>&1
	jq -r '.results[0] | "\(.mean) \(.user + .system)"' "$WORK/times.json"
}

echo "bench/rebuild.sh: building $name once" >&2
first=$("${build[@]}" | tail -n 1)
read -r wall cpu < <(again)
"$WORK/rhizome" lock "$name" >/dev/null 2>&1
second=$("${build[@]}" | tail -n 1)
read -r lockedwall lockedcpu < <(again)
[ "$first" = "$second" ] || { echo "bench/rebuild.sh: $first became $second" >&2; exit 1; }

cat <<TABLE
$name, mean of $RUNS.

| work | wall s | CPU s | must |
|---|---|---|---|
| a no-change rebuild | $(printf '%.2f | %.2f' "$lockedwall" "$lockedcpu") | 1 |
| the same without a lock file | $(printf '%.2f | %.2f' "$wall" "$cpu") | |
TABLE
