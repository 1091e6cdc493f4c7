#!/bin/bash
# Measures our NFS responder beside nfs-ganesha (FSAL VFS) in the same run, in a
# network namespace of its own, with bench/nfs/load.c as the client, and prints
# a Markdown table: server CPU per call, MB/s, and their ratios. Each cell is
# the best of ROUNDS runs of SECONDS each, the two servers by turns. Then what
# 1,000 nodes on one base cost in memory.
#
#   sudo bench/nfs.sh [FILTER]          rows whose name contains FILTER
#   ROUNDS=3 SECONDS_EACH=3 FILES=30000 sudo -E bench/nfs.sh
#
# Needs: go, gcc, nfs-ganesha, nfs-ganesha-vfs, rpcbind, iproute2.
set -euo pipefail

ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-3} FILES=${FILES:-30000} FILTER=${1:-}

if [ -z "${RHIZOME_BENCH_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "bench/nfs.sh: needs root, for a network namespace and reserved ports" >&2; exit 1; }
	cd "$(dirname "$0")/.."
	for tool in ganesha.nfsd rpcbind gcc go ip; do
		command -v $tool >/dev/null || { echo "bench/nfs.sh: $tool is missing (apt install nfs-ganesha nfs-ganesha-vfs rpcbind gcc iproute2)" >&2; exit 1; }
	done
	WORK=$(mktemp -d /tmp/rhizome-bench-nfs-XXXXXX)
	trap 'rm -rf "$WORK"' EXIT
	gcc -O2 -Wall -Wextra -o "$WORK/load" bench/nfs/load.c
	go build -o "$WORK/server" ./bench/nfs/server
	go build -o "$WORK/nodes" ./bench/nfs/nodes
	RHIZOME_BENCH_INSIDE=$WORK ROUNDS=$ROUNDS SECONDS_EACH=$SECONDS_EACH FILES=$FILES \
		unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$FILTER"
	exit
fi

WORK=$RHIZOME_BENCH_INSIDE
cd "$WORK"
mount -t tmpfs tmpfs /run
ip link set lo up

# The tree: FILES files of 1 to 8 KiB in directories of 100, one of 64 MiB.
mkdir -p tree/small tree/etc
echo bench > tree/etc/hostname
head -c 67108864 /dev/urandom > tree/big
for ((d = 0; d < FILES / 100; d++)); do
	mkdir "tree/small/$d"
	s=$((1024 * (1 + d % 8)))
	head -c $((100 * s)) /dev/urandom | (cd "tree/small/$d" && split -b $s -)
done
tar --sort=name -C tree -cf tree.tar .

cat > ganesha.conf <<CONF
NFS_CORE_PARAM { Protocols = 3; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = true; }
NFSV4 { Graceless = true; RecoveryRoot = "$WORK/recovery"; }
EXPORT_DEFAULTS { Access_Type = RO; Squash = None; SecType = sys, none; Transports = UDP, TCP; Protocols = 3; }
EXPORT { Export_Id = 1; Path = $WORK/tree; Pseudo = /bench; FSAL { Name = VFS; } }
LOG { Default_Log_Level = CRIT; }
CONF
mkdir -p recovery
rpcbind -f & sleep 1
ganesha.nfsd -F -f ganesha.conf -L ganesha.log -p /run/ganesha.pid &
GANESHA=$!
./server -tar tree.tar -listen 127.0.0.1:12049 ${PROFILE:+-cpuprofile "$PROFILE"} > server.log &
OURS=$!
for _ in $(seq 120); do
	grep -q ready server.log && rpcinfo -p 127.0.0.1 | grep -q mountd && break
	sleep 0.5
done

# run SERVER ARGS...: the load's line.
run() {
	local who=$1; shift
	if [ "$who" = ganesha ]; then ./load -e "$WORK/tree" -p $GANESHA -t "$SECONDS_EACH" "$@"
	else ./load -n 12049 -m 12049 -e /nodes/bench -p $OURS -t "$SECONDS_EACH" "$@"; fi
}

# Everything is in memory before anything is measured.
for who in ganesha ours; do
	run $who -t 5 read big 1048576 >/dev/null
	run $who walk small >/dev/null
done

printf '| work | ganesha us | ours us | CPU ratio | ganesha MB/s | ours MB/s | MB/s ratio | ganesha calls/s | ours calls/s | ratio |\n|---|---|---|---|---|---|---|---|---|---|\n'

# row NAME ARGS...
row() {
	local name=$1 lines="" r; shift
	[[ "$name" == *"$FILTER"* ]] || return 0
	for ((r = 0; r < ROUNDS; r++)); do
		lines+="g $(run ganesha "$@")"$'\n'
		lines+="o $(run ours "$@")"$'\n'
	done
	awk -v name="$name" '
		NF { k = $1; if (!(k in us) || $7 < us[k]) us[k] = $7; if ($6 > mb[k]) mb[k] = $6; if ($5 > cs[k]) cs[k] = $5 }
		END { m = mb["g"] > 0 ? sprintf("%.0f | %.0f | %.1f", mb["g"], mb["o"], mb["o"] / mb["g"]) : "- | - | -"
			printf "| %s | %.1f | %.1f | %.1f | %s | %.0f | %.0f | %.1f |\n", name, us["g"], us["o"], us["g"] / us["o"], m, cs["g"], cs["o"], cs["o"] / cs["g"] }' <<<"$lines"
}

row "GETATTR, 1 x 1" -c 1 -q 1 getattr etc/hostname
row "GETATTR, 1 x 16" -c 1 -q 16 getattr etc/hostname
row "GETATTR, 8 x 16" -c 8 -q 16 getattr etc/hostname
row "LOOKUP, 1 x 16" -c 1 -q 16 lookup etc/hostname
row "LOOKUP, 8 x 16" -c 8 -q 16 lookup etc/hostname
row "ACCESS, 1 x 16" -c 1 -q 16 access etc/hostname
row "ACCESS, 8 x 16" -c 8 -q 16 access etc/hostname
row "READ 32 KiB, 1 x 1" -c 1 -q 1 read big 32768
row "READ 32 KiB, 1 x 16" -c 1 -q 16 read big 32768
row "READ 128 KiB, 1 x 16" -c 1 -q 16 read big 131072
row "READ 1 MiB, 1 x 4" -c 1 -q 4 read big 1048576
row "READ 8 KiB over UDP, 1 x 1" -c 1 -q 1 udpread big 8192
row "walk and read $FILES files, 1 x 16" -c 1 -q 16 walk small
kill $OURS
wait $OURS || true
if [[ "memory" == *"$FILTER"* ]]; then
	echo
	./nodes
fi
