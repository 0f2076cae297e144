# Measuring through a switch, in namespaces $id-c1 (10.0.0.1) and $id-c2 (10.0.0.2):
# what scripts/compare and scripts/compare-tunnels have in common. It is sourced, with
# id, dir, seconds and namespaces set.

pids=

down() {
	for p in $pids; do kill "$p" 2>/dev/null || true; wait "$p" 2>/dev/null || true; done
	pids=
	for f in "$dir"/*.pid; do [ ! -e "$f" ] || { kill "$(cat "$f")" 2>/dev/null || true; rm -f "$f"; }; done
	for n in $namespaces; do
		for p in $(ip netns pids "$id-$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null || true; done
		ip netns del "$id-$n" 2>/dev/null || true
	done
}
clean() { status=$?; trap - EXIT; down; rm -rf "$dir"; exit $status; }
trap clean EXIT
trap 'exit 130' INT TERM HUP

until_() { # SECONDS COMMAND…
	tries=$(($1 * 20)); shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1)); [ $tries -gt 0 ] || { echo "gave up waiting for: $*" >&2; return 1; }
		sleep 0.05
	done
}
# up_namespaces makes them all.
up_namespaces() {
	for n in $namespaces; do ip netns add "$id-$n"; ip -n "$id-$n" link set lo up; done
}
# plug HOST INTERFACE N joins container N to a host.
plug() {
	ip -n "$id-$1" link add "$2" type veth peer name eth0 netns "$id-c$3"
	ip -n "$id-c$3" addr add "10.0.0.$3/24" dev eth0
	ip -n "$id-c$3" link set eth0 up
	ip -n "$id-$1" link set "$2" up
}

# vswitchd_ HOST FLAGS… starts the daemon there, and makes VSWITCH_CTL its socket.
vswitchd_() {
	h=$1; shift
	rm -rf "$dir/$h"
	ip netns exec "$id-$h" "$bin/vswitchd" --run-dir "$dir/$h/run" --state-dir "$dir/$h/state" "$@" >"$dir/$h.log" 2>&1 &
	pids="$pids $!"
	export VSWITCH_CTL="$dir/$h/run/ctl.sock"
	until_ 10 "$bin/vswitchctl" version
}

# ovs_ HOST starts Open vSwitch there, and makes $db its database.
ovs_() {
	export OVS_RUNDIR="$dir/ovs-$1" OVS_LOGDIR="$dir/ovs-$1"
	rm -rf "$OVS_RUNDIR"; mkdir "$OVS_RUNDIR"
	db=unix:$OVS_RUNDIR/db.sock
	ovsdb-tool create "$OVS_RUNDIR/conf.db" /usr/share/openvswitch/vswitch.ovsschema
	ip netns exec "$id-$1" ovsdb-server "$OVS_RUNDIR/conf.db" --remote="p$db" --unixctl="$OVS_RUNDIR/o.ctl" --pidfile="$dir/ovsdb-$1.pid" --detach --log-file=/dev/null 2>/dev/null
	ovs-vsctl --db="$db" --no-wait init
	[ -z "${2-}" ] || ovs-vsctl --db="$db" --no-wait set Open_vSwitch . "$2"
	ip netns exec "$id-$1" ovs-vswitchd "$db" --unixctl="$OVS_RUNDIR/v.ctl" --pidfile="$dir/ovsv-$1.pid" --detach --log-file=/dev/null 2>/dev/null
}

tcp() { # Gbit/s and retransmits
	ip netns exec "$id-c2" iperf3 -s -1 >/dev/null 2>&1 &
	pids="$pids $!"
	until_ 10 sh -c "ip netns exec $id-c2 ss -Hltn 'sport = :5201' | grep -q LISTEN"
	ip netns exec "$id-c1" iperf3 -c 10.0.0.2 -t "$seconds" -J | jq -r '"\(.end.sum_received.bits_per_second/1e9*100|round/100) \(.end.sum_sent.retransmits)"'
}
pingpong() { # p50 and p99 one way, µs
	ip netns exec "$id-c2" sockperf server -i 10.0.0.2 >/dev/null 2>&1 &
	pids="$pids $!"
	until_ 10 sh -c "ip netns exec $id-c2 ss -Hlun 'sport = :11111' | grep -q 11111"
	ip netns exec "$id-c1" sockperf ping-pong -i 10.0.0.2 -t "$seconds" 2>/dev/null |
		sed -n 's/.*percentile \(50\|99\)\.000 = *//p' | tac | tr '\n' ' '
}

# measure SUBJECT… runs rounds of them, interleaved; up SUBJECT and down stand it up
# and take it away.
measure() {
	for r in $(seq "$rounds"); do
		for s in "$@"; do
			up "$s"
			t=$(tcp) p=$(pingpong)
			echo "round $r $s: TCP ${t% *} Gbit/s, ${t#* } retransmits, ping-pong p50 p99 $p us"
			echo "$s ${t% *} $p" >>"$dir/results"
			down
		done
	done
}

# report N prints medians with the lowest and the highest, and ratios of the first
# N subjects' medians to those of the others.
report() {
	awk -v ours="$1" '
	function median(k, c,   n, i, j, t, v) {
		n = split(all[k, c], v, " ")
		for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] + 0 < v[j-1] + 0; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
		lo = v[1]; hi = v[n]
		return n % 2 ? v[(n+1)/2] : (v[n/2] + v[n/2+1]) / 2
	}
	{ if (!($1 in seen)) { seen[$1]; order[++k] = $1 }; for (c = 2; c <= 4; c++) all[$1, c] = all[$1, c] " " $c }
	END {
		printf "\n%-22s %-26s %-26s %s\n", "median (low-high)", "TCP Gbit/s", "p50 us", "p99 us"
		for (i = 1; i <= k; i++) {
			printf "%-22s", order[i]
			for (c = 2; c <= 4; c++) { m[order[i], c] = median(order[i], c); printf " %-26s", sprintf("%.2f (%.2f-%.2f)", m[order[i], c], lo, hi) }
			print ""
		}
		for (i = 1; i <= ours; i++) for (j = ours + 1; j <= k; j++)
			printf "%s / %s: TCP %.2f, p50 %.2f, p99 %.2f\n", order[i], order[j], m[order[i],2]/m[order[j],2], m[order[i],3]/m[order[j],3], m[order[i],4]/m[order[j],4]
	}' "$dir/results"
}
