#!/bin/bash
# Measures writes on /persist beside nfs-ganesha (FSAL VFS) on the same disk in
# the same run, and prints a Markdown table: MB/s, server CPU per call, ratios.
# Each cell is the best of ROUNDS runs of SECONDS_EACH each, by turns.
#
#   sudo bench/persist.sh
#   DISK=/var/tmp ROUNDS=3 SECONDS_EACH=3 sudo -E bench/persist.sh
#
# Needs: go, nfs-ganesha, nfs-ganesha-vfs, rpcbind, iproute2.
set -euo pipefail

ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-3} DISK=${DISK:-/var/tmp}

if [ -z "${RHIZOME_BENCH_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "bench/persist.sh: needs root, for a network namespace and reserved ports" >&2; exit 1; }
	cd "$(dirname "$0")/.."
	for tool in ganesha.nfsd rpcbind go ip; do
		command -v $tool >/dev/null || { echo "bench/persist.sh: $tool is missing (apt install nfs-ganesha nfs-ganesha-vfs rpcbind iproute2)" >&2; exit 1; }
	done
	WORK=$(mktemp -d "$DISK/rhizome-bench-persist-XXXXXX")
	trap 'rm -rf "$WORK"' EXIT
	go build -o "$WORK/persist" ./bench/persist
	RHIZOME_BENCH_INSIDE=$WORK ROUNDS=$ROUNDS SECONDS_EACH=$SECONDS_EACH \
		unshare --net --mount --pid --fork --kill-child --mount-proc "$0"
	exit
fi

WORK=$RHIZOME_BENCH_INSIDE
cd "$WORK"
mount -t tmpfs tmpfs /run
ip link set lo up
mkdir -p tree recovery store
cat > ganesha.conf <<CONF
NFS_CORE_PARAM { Protocols = 3; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; }
NFSV4 { Graceless = true; RecoveryRoot = "$WORK/recovery"; }
EXPORT_DEFAULTS { Access_Type = RW; Squash = None; SecType = sys; Transports = TCP; Protocols = 3; }
EXPORT { Export_Id = 1; Path = $WORK/tree; Pseudo = /bench; FSAL { Name = VFS; } }
LOG { Default_Log_Level = CRIT; }
CONF
rpcbind -f & sleep 1
ganesha.nfsd -F -f ganesha.conf -L ganesha.log -p /run/ganesha.pid &
GANESHA=$!
./persist serve store 127.0.0.1:12049 > server.log &
OURS=$!
for _ in $(seq 120); do
	grep -q ready server.log && rpcinfo -p 127.0.0.1 | grep -q mountd && break
	sleep 0.5
done

# run SERVER ARGS...: the load's line: calls seconds calls/s MB/s us/call.
run() {
	local who=$1; shift
	if [ "$who" = g ]; then ./persist load -export "$WORK/tree" -mount 127.0.0.1:20048 -pid $GANESHA -time "${SECONDS_EACH}s" "$@"
	else ./persist load -nfs 127.0.0.1:12049 -mount 127.0.0.1:12049 -pid $OURS -time "${SECONDS_EACH}s" "$@"; fi
}

printf '| work | ganesha calls/s | ours calls/s | ratio | ganesha MB/s | ours MB/s | ratio | ganesha CPU us | ours CPU us |\n|---|---|---|---|---|---|---|---|---|\n'
row() {
	local name=$1 lines="" r; shift
	for ((r = 0; r < ROUNDS; r++)); do
		lines+="g $(run g "$@")"$'\n'
		lines+="o $(run o "$@")"$'\n'
	done
	awk -v name="$name" 'NF { k = $1; if ($4 > cs[k]) cs[k] = $4; if ($5 > mb[k]) mb[k] = $5; if (!(k in us) || $6 < us[k]) us[k] = $6 }
		END { printf "| %s | %.0f | %.0f | %.2f | %.1f | %.1f | %.2f | %.0f | %.0f |\n", name, cs["g"], cs["o"], cs["o"] / cs["g"], mb["g"], mb["o"], mb["o"] / mb["g"], us["g"], us["o"] }' <<<"$lines"
}

row "WRITE 4 KiB stable, 1 x 1" -size 4096 -depth 1
row "WRITE 4 KiB stable, 1 x 16" -size 4096 -depth 16
row "WRITE 1 MiB unstable, COMMIT every 64, 1 x 4" -size 1048576 -depth 4 -batch 64
kill $OURS
wait $OURS || true
