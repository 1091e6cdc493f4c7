#!/bin/sh
# TFTP beside dnsmasq and tftpd-hpa in one run: one file, blksize 1468, windowsize
# 16, one client that is the same for all (a server that knows no windows gets single
# blocks), without and with 200 us before each acknowledgement, which is what a
# round trip through a switch and a slow card costs. The client waits that time
# itself: netem is not in every kernel, and a relay would be measured too. Prints MB/s,
# the server's CPU (tftpd-hpa forks; its is not known) and the ratio to the better
# peer. Needs root (port 69 in a network namespace of its own), dnsmasq-base and
# tftpd-hpa.
#
#   bench/tftp.sh [MiB] [rounds]
set -eu
cd "$(dirname "$0")/.."
self=bench/tftp.sh

size=${1:-64} rounds=${2:-5} delay=200us

if [ "${RHIZOME_BENCH_NS:-}" != 1 ]; then
	[ "$(id -u)" = 0 ] || { echo "skipped: needs root for a network namespace"; exit 0; }
	RHIZOME_BENCH_NS=1 exec unshare --net "./$self" "$@"
fi
ip link set lo up
ip addr add 10.77.0.1/32 dev lo # in.tftpd finds no IPv4 where there is only 127.0.0.1

work=$(mktemp -d)
pids=
stop() {
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	rm -rf "$work"
}
trap stop EXIT INT TERM

CGO_ENABLED=0 go build -o "$work/tftp" ./bench/tftp
mkdir "$work/root"
head -c "$((size * 1024 * 1024 + 100))" /dev/urandom >"$work/root/file"
chmod -R a+rX "$work"

"$work/tftp" serve -addr 127.0.0.1:69 -dir "$work/root" &
ours=$!
dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --port=0 --enable-tftp --tftp-root="$work/root" \
	--user=root --listen-address=127.0.0.2 --bind-interfaces --tftp-no-fail --log-facility=/dev/null &
dnsmasq=$!
in.tftpd --foreground --address 127.0.0.3:69 --secure "$work/root" &
tftpd=$!
pids="$ours $dnsmasq $tftpd"
sleep 1

# ticks PID: user and system time of a process and of its children that ended, in 1/100 s.
ticks() { awk '{print $14 + $15 + $16 + $17}' "/proc/$1/stat"; }

# median of the rounds in MB/s, the window that was granted, CPU seconds in all
measure() {
	before=$(ticks "$2")
	i=0
	: >"$work/rates"
	while [ $i -lt "$rounds" ]; do
		"$work/tftp" get -addr "$1" -delay "$3" >>"$work/rates" || echo "0 0 0 0" >>"$work/rates"
		i=$((i + 1))
	done
	sleep 0.2
	after=$(ticks "$2")
	sort -n "$work/rates" | awk -v m=$((rounds / 2 + 1)) -v cpu=$((after - before)) \
		'NR==m {printf "%s %s %.2f\n", $1, $3, cpu / 100}'
}

printf '%-12s %-10s %10s %7s %8s\n' delay server MB/s window 'CPU s'
for where in none "$delay"; do
	wait=$where
	[ "$where" != none ] || wait=0
	best=0
	for s in dnsmasq:2:$dnsmasq tftpd-hpa:3:$tftpd rhizome:1:$ours; do
		name=${s%%:*} rest=${s#*:}
		measure "127.0.0.${rest%%:*}:69" "${rest#*:}" "$wait" >"$work/result"
		read -r rate window cpu <"$work/result"
		[ "$name" != tftpd-hpa ] || cpu=-
		printf '%-12s %-10s %10s %7s %8s\n' "$where" "$name" "$rate" "$window" "$cpu"
		if [ "$name" = rhizome ]; then mine=$rate; else best=$(printf '%s\n' "$rate" "$best" | sort -n | tail -1); fi
	done
	echo "$mine $best" | awk -v w="$where" '{printf "%-12s ratio to the better peer: %.2f\n", w, $1 / $2}'
done
