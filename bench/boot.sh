#!/bin/bash
# Boots of a QEMU machine over slow links, with a workload over /usr: rhizome
# without and with a precache bundle, also with a workload that waits for the
# bundle, and dnsmasq + nfs-ganesha with the same root.
# Counts calls, bytes and the time spent waiting on calls: under an emulated CPU
# the wall clock says little. The hot list is learned from one boot and one run of
# the workload over an unshaped link.
#
#   sudo bench/boot.sh [LINKS]      LINKS such as 10mbit,1gbit (tc-tbf(8))
#   ROUNDS=3 LIMIT=64M STORE=DIR SVG=coverage.svg ONLY="rhizome, precache" sudo -E bench/boot.sh
#
# Needs: go, qemu-system-x86, iproute2, mmdebstrap, dnsmasq-base, nfs-ganesha,
# nfs-ganesha-vfs, rpcbind, openssh-client.
set -euo pipefail
cd "$(dirname "$0")/.."
links=${1:-10mbit,1gbit} limit=${LIMIT:-} svg=${SVG:-}
[ "$(id -u)" = 0 ] || { echo "bench/boot.sh: needs root, for network namespaces" >&2; exit 1; }
for tool in go qemu-system-x86_64 ip tc dnsmasq ganesha.nfsd rpcbind ssh-keygen mmdebstrap; do
	command -v $tool >/dev/null || { echo "bench/boot.sh: $tool is missing (.ci/setup bench)" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/" ./cmd/rhizome ./cmd/rhizome-node
CGO_ENABLED=0 go build -o "$work/boots" ./cmd/rhizome/boots
rhizome() { "$work/rhizome" --store "${STORE:-$work/store}" "$@"; }
boots() { "$work/boots" -rhizome "$work/rhizome" -store "${STORE:-$work/store}" -lock "${LOCK:-}" -memory 1024 -limit 40m "$@"; }

cp -r bench/boot "$work/recipe"
rhizome build "$work/recipe/recipe.yaml" --tag bench:nfs >&2
mkdir "$work/learn" "$work/measure"
boots -image bench:nfs -dir "$work/learn" -links 10gbit -only rhizome >&2
rhizome precache learn bench:nfs --during boot --during workload ${limit:+--limit "$limit"} ${svg:+--svg "$svg"} \
	--output "$work/recipe/hot.txt" >"$work/fragment"
sed -i -e "/^#precache/{r $work/fragment
d}" -e 's/root: nfs/root: precache/' "$work/recipe/recipe.yaml"
rhizome build "$work/recipe/recipe.yaml" --tag bench:precache >&2
sed -i 's/panic=10]/panic=10, bench.filled]/' "$work/recipe/recipe.yaml"
rhizome build "$work/recipe/recipe.yaml" --tag bench:filled >&2
boots -image bench:nfs -bundled bench:precache -filled bench:filled -dir "$work/measure" -links "$links" -rounds "${ROUNDS:-1}" ${ONLY:+-only "$ONLY"}
