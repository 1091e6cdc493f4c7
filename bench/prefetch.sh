#!/bin/bash
# The build of a small C project (tcc, 41 files of 12 headers each) in a QEMU node
# with cold caches, on the cluster's export over NFS, and the same in
# rhizome-node prefetch: NFS calls, bytes both ways and milliseconds of waiting for them
# (Linux's mountstats; the streams of prefetch by the server's clock), on a link of
# LINK (tc-tbf(8)).
#
#   sudo bench/prefetch.sh [LINK...]        10mbit and 1gbit unless it says otherwise
#
# Needs: go, qemu-system-x86, iproute2, mmdebstrap, docker-registry.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench/prefetch.sh: needs root, for network namespaces" >&2; exit 1; }
[ $# -gt 0 ] || set -- 10mbit 1gbit
for link in "$@"; do
	RHIZOME_E2E_LINK=$link go test -count=1 -timeout 30m -v -run TestAProjectIsBuilt ./cmd/rhizome/e2e |
		sed -n "s/.*BUILD/$link: a build/p"
done
