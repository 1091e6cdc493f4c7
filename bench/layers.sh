#!/bin/bash
# Measures layers beside umoci, tar with zstd, and ostree in the same run, on a
# real Debian root of about 1 GB, and prints a Markdown table of seconds and
# ratios. Each figure is the best of ROUNDS, the peers by turns.
#
#   sudo bench/layers.sh
#   ROUNDS=3 PACKAGES=linux-image-amd64,git sudo -E bench/layers.sh
#
# The root is made once by mmdebstrap and kept in ${XDG_CACHE_HOME:-~/.cache}/rhizome-bench.
# Needs: go, mmdebstrap, umoci, zstd, openssl, ostree, and 10 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-3}
PACKAGES=${PACKAGES:-linux-image-amd64,build-essential,git,python3,openssh-server,perl,vim,gdb,cmake,clang,nfs-common,man-db,ca-certificates}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rhizome-bench
ROOT=$CACHE/debian.tar

[ "$(id -u)" = 0 ] || { echo "bench/layers.sh: needs root, since umoci keeps owners for root only" >&2; exit 1; }
for tool in go mmdebstrap umoci zstd openssl ostree; do
	command -v $tool >/dev/null || { echo "bench/layers.sh: $tool is missing (apt install mmdebstrap umoci zstd openssl ostree)" >&2; exit 1; }
done

if [ ! -s "$ROOT" ]; then
	mkdir -p "$CACHE"
	echo "bench/layers.sh: making a Debian root in $ROOT" >&2
	rm -rf "$ROOT.part"
	mmdebstrap --quiet --format=tar --variant=important --include="$PACKAGES" bookworm "$ROOT.part"
	mv "$ROOT.part" "$ROOT"
fi

WORK=$(mktemp -d /var/tmp/rhizome-bench-layers-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
go build -o "$WORK/layers" ./bench/layers
cd "$WORK"

# A tree on disk for those who read one, and an empty image for umoci.
umoci init --layout oci
umoci new --image oci:empty
umoci unpack --image oci:empty bundle
tar -xf "$ROOT" -C bundle/rootfs --numeric-owner
# ostree takes no devices.
cp -a --reflink=auto bundle/rootfs tree && rm -rf tree/dev && mkdir tree/dev
cat "$ROOT" >/dev/null

# best NAME COMMAND...: runs the command, and keeps the least wall and CPU
# seconds under the name.
declare -A WALL CPU
least() { awk -v a="${1:-}" -v b="$2" 'BEGIN { print (a == "" || b + 0 < a + 0) ? b : a }'; }
best() {
	local name=$1 t
	shift
	local TIMEFORMAT='%R %U %S'
	t=$({ time "$@" >/dev/null 2>"$WORK/err"; } 2>&1) || { cat "$WORK/err" >&2; exit 1; }
	read -r r u s <<< "$t"
	WALL[$name]=$(least "${WALL[$name]:-}" "$r")
	CPU[$name]=$(least "${CPU[$name]:-}" "$(awk "BEGIN { print $u + $s }")")
}
ratio() { awk "BEGIN { printf \"%.2f\", $1 / $2 }"; }
mb() { awk -v b="$(stat -c %s "$1")" 'BEGIN { printf "%.0f", b / 1e6 }'; }

tar_zstd() { tar -C bundle/rootfs -cf - . | zstd -3 -q -f -o peer.tar.zst; }
umoci_repack() { umoci repack --image oci:full bundle; }
umoci_unpack() { umoci unpack --image oci:full unpacked; }
ostree_commit() { ostree --repo=repo commit --branch=b --tree=dir=tree; }
zstd_openssl() { zstd -dc blob | openssl dgst -sha256; }

for ((i = 0; i < ROUNDS; i++)); do
	best make ./layers make "$ROOT" blob
	best tarzstd tar_zstd
	best repack umoci_repack
	best open ./layers open blob
	rm -rf unpacked
	best unpack umoci_unpack
	rm -rf repo && ostree --repo=repo init --mode=bare-user
	best ostree ostree_commit
	best read ./layers read blob
	best openssl zstd_openssl
done
read -r heap micros < <(./layers nodes blob 1000)
umoci_blob=$(find oci/blobs -type f -printf '%s %p\n' | sort -rn | head -n 1 | cut -d' ' -f2)

cat <<TABLE
On a Debian root of $(tar -tf "$ROOT" | wc -l) entries, $(mb "$ROOT") MB of tar; best of $ROUNDS; $(nproc) processors.

| work | rhizome | beside | ratio | must |
|---|---|---|---|---|
| tar to layer, CPU s | ${CPU[make]} | umoci repack ${CPU[repack]} | $(ratio "${CPU[make]}" "${CPU[repack]}") | 0.50 |
| tar to layer, wall s | ${WALL[make]} | tar + zstd -3 ${WALL[tarzstd]} | $(ratio "${WALL[make]}" "${WALL[tarzstd]}") | 1.20 |
| layer, MB | $(mb blob) | tar + zstd -3 $(mb peer.tar.zst) | $(ratio "$(stat -c %s blob)" "$(stat -c %s peer.tar.zst)") | 1.08 |
| layer, MB | $(mb blob) | umoci (gzip) $(mb "$umoci_blob") | $(ratio "$(stat -c %s blob)" "$(stat -c %s "$umoci_blob")") | |
| pulled blob to first file, wall s | ${WALL[open]} | umoci unpack ${WALL[unpack]} | $(ratio "${WALL[open]}" "${WALL[unpack]}") | 0.10 |
| pulled blob to first file, wall s | ${WALL[open]} | ostree commit ${WALL[ostree]} | $(ratio "${WALL[open]}" "${WALL[ostree]}") | 0.10 |
| read all files, CPU s | ${CPU[read]} | zstd -d to openssl sha256 ${CPU[openssl]} | $(ratio "${CPU[read]}" "${CPU[openssl]}") | 1.20 |
| heap a node of 1,000, KB | $heap | | | 50 |
| making a node's view, us | $micros | | | |
TABLE
