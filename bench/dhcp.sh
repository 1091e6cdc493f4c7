#!/bin/sh
# DHCP exchanges (DISCOVER, OFFER, REQUEST, ACK) a second, and the server's CPU
# for each: rhizome beside dnsmasq with static hosts and --no-ping, in one run.
# Server and load are processes of their own in two namespaces; needs root. The
# load is ours, a closed loop of broadcasts as machines send them, and Kea's
# perfdhcp(8), a relay whose machines begin more exchanges each second until less
# than 99 of 100 come to their end within a second.
#
#   bench/dhcp.sh [seconds] [nodes]
#
# CPU is /proc/PID/task/*/schedstat: nanoseconds on a core, whatever else the
# machine is doing.
set -eu
seconds=${1:-10}
nodes=${2:-640}
[ "$(id -u)" = 0 ] || { echo "skipped: network namespaces need root"; exit 0; }
for p in ip dnsmasq perfdhcp go; do command -v "$p" >/dev/null || { echo "skipped: $p is not installed"; exit 0; }; done

here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d /tmp/rzb-dhcp-XXXXXX)
ns=rzb-dhcp-$$
server=
cleanup() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	ip netns del "$ns-s" 2>/dev/null || true
	ip netns del "$ns-c" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

(cd "$here" && go build -o "$dir/dhcp" ./bench/dhcp)
ip netns add "$ns-s"
ip netns add "$ns-c"
ip -n "$ns-s" link add br0 type veth peer name eth0 netns "$ns-c"
ip -n "$ns-s" addr add 10.77.0.1/16 dev br0
ip -n "$ns-s" link set br0 up
ip -n "$ns-c" addr add 10.77.255.254/16 dev eth0
ip -n "$ns-c" link set eth0 up

i=0
while [ "$i" -lt "$nodes" ]; do
	printf '02:77:00:00:%02x:%02x,10.77.%d.%d,n%d\n' $((i / 256)) $((i % 256)) $((1 + i / 250)) $((1 + i % 250)) "$i"
	i=$((i + 1))
done >"$dir/hosts"
cut -d, -f1 "$dir/hosts" >"$dir/macs"

cpu() { cat "/proc/$1/task/"*/schedstat 2>/dev/null | awk '{s += $1} END {printf "%.0f", s / 1000}'; }

# perf NAME: the highest rate that the same server keeps up with, one line. perfdhcp
# exits with 3 where exchanges were lost, which its report tells.
perf() {
	best=
	for rate in 125 250 500 1000 2000 4000 8000 16000; do
		busy=$(cpu "$server")
		ip netns exec "$ns-c" perfdhcp -4 -l eth0 -M "$dir/macs" -r "$rate" -p 2 -W 1000000 10.77.0.1 >"$dir/perf.log" 2>&1 || true
		busy=$(($(cpu "$server") - busy))
		line=$(awk -v cpu="$busy" '/^Rate:/ { rate = $2 } /^sent packets:/ && !sent { sent = $3 } /^received packets:/ { acks = $3 }
			END { if (sent && acks >= 0.99 * sent) printf "%s %.1f", rate, cpu / acks }' "$dir/perf.log")
		[ -n "$line" ] || break
		best=$line
	done
	[ -n "$best" ] || { echo "bench/dhcp.sh: perfdhcp got no answers:" >&2; cat "$dir/perf.log" >&2; exit 1; }
	echo "$1 $best" | awk '{printf "%-28s %8.0f exchanges/s  %7.1f us CPU  (perfdhcp)\n", $1, $2, $3}'
	echo "$1 $best" >>"$dir/perf"
}

# measure NAME COMMAND...: starts a server, loads it, prints one line.
measure() {
	name=$1
	shift
	ip netns exec "$ns-s" "$@" >"$dir/server.log" 2>&1 &
	server=$!
	tries=0
	# Ready when its port is open: 67 is 0x43.
	until ip netns exec "$ns-s" grep -q ':0043 ' /proc/net/udp; do
		tries=$((tries + 1))
		[ "$tries" -lt 200 ] || { cat "$dir/server.log"; exit 1; }
		sleep 0.05
	done
	ip netns exec "$ns-c" "$dir/dhcp" load -interface eth0 -nodes "$nodes" -for 2s >/dev/null # warm
	before=$(cpu "$server")
	out=$(ip netns exec "$ns-c" "$dir/dhcp" load -interface eth0 -nodes "$nodes" -for "${seconds}s")
	after=$(cpu "$server")
	perf "$name"
	kill "$server"
	wait "$server" 2>/dev/null || true
	server=
	echo "$name $out $((after - before))" | awk '{printf "%-28s %8.0f exchanges/s  %7.1f us CPU  p50 %6d us  p99 %7d us  resends %d\n", $1, $5, $12 / $3, $7, $9, $11}'
	echo "$name $out $((after - before))" >>"$dir/all"
}

dnsmasq() {
	leases=$1
	shift
	measure "$leases" dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file --interface=br0 --bind-interfaces \
		--dhcp-authoritative --no-ping --quiet-dhcp --dhcp-range=10.77.0.0,static,255.255.0.0,1h --dhcp-hostsfile="$dir/hosts" \
		--dhcp-lease-max=100000 --dhcp-boot=/pxelinux.0 --dhcp-leasefile="$dir/leases" "$@"
}

# Twice, in turns: the machine may be busy.
for _ in 1 2; do
	rm -f "$dir/leases"
	measure rhizome "$dir/dhcp" serve -interface br0 -nodes "$nodes"
	dnsmasq dnsmasq
	rm -f "$dir/leases"
	dnsmasq dnsmasq,leasefile-ro --leasefile-ro
done

awk '{n[$1] += $3; c[$1] += $12; r[$1] += $5}
END {for (k in n) if (k != "rhizome")
	printf "ratio to %-22s exchanges/s %.1f times, CPU for each %.2f of it\n", k, r["rhizome"] / r[k], (c["rhizome"] / n["rhizome"]) / (c[k] / n[k])}' "$dir/all"
awk '{if ($2 > r[$1]) r[$1] = $2; if (!c[$1] || $3 < c[$1]) c[$1] = $3}
END {for (k in r) if (k != "rhizome")
	printf "perfdhcp: ratio to %-12s exchanges/s %.1f times, CPU for each %.2f of it\n", k, r["rhizome"] / r[k], c["rhizome"] / c[k]}' "$dir/perf"
