#!/bin/bash
# Boots of a QEMU machine, power-on to userland, and the CPU that all processes of
# the server took for them (cpu.stat of a cgroup), with warm caches: rhizome beside
# dnsmasq + nfs-ganesha, tuned and untuned, by turns, from one kernel, initrd and
# root. cmd/rhizome/boots says what tuned is.
#
#   sudo bench/boots.sh [BOOTS] [STORE]     STORE holds debian-demo:latest; else it is built
#
# Needs: go, qemu-system-x86, iproute2, dnsmasq-base, nfs-ganesha, nfs-ganesha-vfs, rpcbind.
set -euo pipefail
cd "$(dirname "$0")/.."
boots=${1:-20} store=${2:-}
[ "$(id -u)" = 0 ] || { echo "bench/boots.sh: needs root, for network namespaces" >&2; exit 1; }
for tool in go qemu-system-x86_64 ip dnsmasq ganesha.nfsd rpcbind ssh-keygen; do
	command -v $tool >/dev/null || { echo "bench/boots.sh: $tool is missing (.ci/setup bench)" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/" ./cmd/rhizome ./cmd/rhizome-node
CGO_ENABLED=0 go build -o "$work/boots" ./cmd/rhizome/boots
if [ -z "$store" ]; then
	store=$work/store
	"$work/rhizome" --store "$store" build debian-demo --tag debian-demo:latest >&2
fi
"$work/boots" -rhizome "$work/rhizome" -store "$store" -dir "$work" -boots "$boots" -lock "${LOCK:-}"
