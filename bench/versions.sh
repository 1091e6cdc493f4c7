#!/bin/bash
# What ten versions of a root take on the disk, for 100 nodes: rhizome's store,
# ostree's repositories, and ten full copies, each made of the same ten trees.
#
#   sudo bench/versions.sh
#
# The trees are real states of Debian 12, one after the other: the first has the
# packages of the release pocket and the oldest kernel that Debian still offers;
# every further one has the next of Debian's kernels (they appear about once a
# month) instead, and the next tenth of the security and stable updates, in the
# order in which they were built. A node's own part is seven files of /etc.
#
# Deltas lie on the version before; the tenth, which would be the ninth delta,
# lies on the fifth. ostree gets the trees without devices, which it does not
# take, and one branch for each node.
#
# The first root is made once and kept in ${XDG_CACHE_HOME:-~/.cache}/rhizome-bench.
# Needs: go, mmdebstrap, ostree, a Debian mirror, 10 GB of disk, half an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSIONS=${VERSIONS:-10}
NODES=${NODES:-100}
MIRROR=${MIRROR:-http://deb.debian.org}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rhizome-bench
BASE=$CACHE/release.tar
PACKAGES=${PACKAGES:-build-essential,git,python3,openssh-server,perl,vim,gdb,cmake,clang,nfs-common,man-db,ca-certificates,initramfs-tools}

[ "$(id -u)" = 0 ] || { echo "bench/versions.sh: needs root, to install packages in a root of their own" >&2; exit 1; }
for tool in go mmdebstrap ostree; do
	command -v $tool >/dev/null || { echo "bench/versions.sh: $tool is missing (apt install mmdebstrap ostree)" >&2; exit 1; }
done

WORK=$(mktemp -d /var/tmp/rhizome-bench-versions-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
go build -o "$WORK/versions" ./bench/versions
cd "$WORK"

log() { echo "bench/versions.sh: $*" >&2; }
inside() { chroot root env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@" >>log 2>&1 || { tail -n 20 log >&2; exit 1; }; }
install() { inside apt-get -y -qq --no-install-recommends --allow-downgrades -o Dpkg::Options::=--force-confold install "$@"; }
used() { du -s --block-size=1 "$1" | cut -f1; }

make_first() {
	if [ ! -s "$BASE" ]; then
		mkdir -p "$CACHE"
		mmdebstrap --quiet --format=tar --variant=important --include="$PACKAGES" bookworm "$BASE.part" "deb $MIRROR/debian bookworm main"
		mv "$BASE.part" "$BASE"
	fi
	mkdir root
	tar -C root --numeric-owner --xattrs --xattrs-include='*' -xpf "$BASE"
	cat >>root/etc/apt/sources.list <<-LIST
		deb $MIRROR/debian bookworm-updates main
		deb $MIRROR/debian-security bookworm-security main
	LIST
	cp /etc/resolv.conf root/etc/resolv.conf
	printf '#!/bin/sh\nexit 101\n' >root/usr/sbin/policy-rc.d
	chmod 755 root/usr/sbin/policy-rc.d
	inside apt-get -qq update
}

# kernels are the packages of Debian's kernels for the release, oldest first.
kernels() { chroot root apt-cache --names-only search '^linux-image-6\.1\.0-[0-9]+-amd64$' | cut -d' ' -f1 | sort -V | tail -n "$VERSIONS"; }

# updates are name=version of all packages that can be upgraded, by the date of
# the newest file in each: the day on which it was built.
updates() {
	mkdir -p root/var/cache/updates/partial
	inside apt-get -y -qq --no-install-recommends -d -o APT::Sandbox::User=root -o Dir::Cache::archives=/var/cache/updates dist-upgrade
	local deb
	for deb in root/var/cache/updates/*.deb; do
		echo "$(dpkg-deb --fsys-tarfile "$deb" | TZ=UTC tar -tv --full-time -f - | awk '{print $4}' | sort | tail -n 1)" \
			"$(dpkg-deb -f "$deb" Package)=$(dpkg-deb -f "$deb" Version)"
	done | sort | cut -d' ' -f2
	rm -rf root/var/cache/updates
}

# clean takes away what no image has.
clean() {
	inside apt-get -qq clean
	rm -rf root/var/log/* root/var/cache/apt/* root/var/cache/debconf/*-old
}

# aside hides what ostree does not take and what only this script needs; back
# brings it again.
aside() {
	mv root/dev dev
	mv root/var/lib/apt/lists lists
	mkdir root/dev root/var/lib/apt/lists
}
back() {
	rmdir root/dev root/var/lib/apt/lists
	mv dev root/dev
	mv lists root/var/lib/apt/lists
}

# state brings the root to the version that is given.
state() {
	local n=$1 old
	old=$(chroot root dpkg-query -W -f '${Package}\n' 'linux-image-6.1.0-*' 2>/dev/null || true)
	install "${KERNELS[n - 1]}"
	[ -z "$old" ] || inside apt-get -y -qq purge $old
	local per=$(((${#UPDATES[@]} + VERSIONS - 2) / (VERSIONS - 1)))
	[ "$n" = 1 ] || [ $(((n - 2) * per)) -ge ${#UPDATES[@]} ] || install "${UPDATES[@]:(n - 2) * per:per}"
}

make_nodes() {
	mkdir nodes
	local i p
	for ((i = 0; i < NODES; i++)); do
		for p in etc/hostname etc/hosts etc/machine-id etc/fstab etc/systemd/network/10-boot.network etc/ssh/sshd_config.d/node.conf var/lib/node/id; do
			mkdir -p "nodes/$i/$(dirname $p)"
			echo "node $i" >"nodes/$i/$p"
		done
		tar -C "nodes/$i" --sort=name --owner=0 --group=0 -cf "nodes/$i.tar" $(cd "nodes/$i" && find . -type f | sort)
	done
}

# keep_ostree commits the root and then each node's files over it.
keep_ostree() {
	local repo=$1 n=$2 i
	ostree --repo="$repo" commit --branch=base -s "$n" --tree=dir=root >/dev/null
	for ((i = 0; i < NODES; i++)); do
		ostree --repo="$repo" commit --branch="n$i" -s "$n" --tree=ref=base --tree=dir="nodes/$i" >/dev/null
	done
}

UPDATES=()
log "making the first root"
make_first
mapfile -t KERNELS < <(kernels)
[ ${#KERNELS[@]} = "$VERSIONS" ] || { log "Debian offers ${#KERNELS[@]} kernels now, and $VERSIONS versions want as many: set VERSIONS"; exit 1; }
state 1
mapfile -t UPDATES < <(updates | grep -v ^linux-image)
make_nodes
ostree --repo=archive init --mode=archive
ostree --repo=bare init --mode=bare-user
# Without syncing every object: that changes no byte, and the run is shorter.
for repo in archive bare; do ostree --repo=$repo config set core.fsync false; done
copies=0
for ((n = 1; n <= VERSIONS; n++)); do
	[ "$n" = 1 ] || state "$n"
	clean
	log "version $n: ${KERNELS[n - 1]}"
	parent=$((n - 1))
	[ "$n" -lt 10 ] || parent=5
	[ "$n" -gt 1 ] || parent=
	aside
	tar -C root --numeric-owner --xattrs --xattrs-include='*' -cf root.tar .
	./versions "$WORK/store" root.tar "$n" "$NODES" $parent >&2
	rm root.tar
	copies=$((copies + $(used root)))
	keep_ostree archive "$n"
	keep_ostree bare "$n"
	back
	log "store $(used store), ostree archive $(used archive), bare-user $(used bare)"
done

mb() { awk "BEGIN { printf \"%.0f\", $1 / 1e6 }"; }
ours=$(used store) archive=$(used archive) bare=$(used bare)
best=$((archive < bare ? archive : bare))
cat <<TABLE
$VERSIONS versions of a Debian root of $(mb "$(used root)") MB (${KERNELS[0]} to ${KERNELS[-1]}, ${#UPDATES[@]} updated packages), $NODES nodes; du of each, in MB.

| work | rhizome | beside | ratio | must |
|---|---|---|---|---|
| store after $VERSIONS versions | $(mb $ours) | ostree, archive $(mb $archive), bare-user $(mb $bare) | $(awk "BEGIN { printf \"%.2f\", $ours / $best }") | under 1 |
| store after $VERSIONS versions | $(mb $ours) | $VERSIONS full copies $(mb $copies) | $(awk "BEGIN { printf \"%.2f\", $ours / $copies }") | |
TABLE
