# SPDX-License-Identifier: Apache-2.0
# The two-node part of tools/demo, which sources it: two network namespaces joined by a veth pair, a whole node in each, the
# digit chain across them over encrypted packets, by AF_XDP where the kernel has it, latency beside the limits of such a wire,
# and vision/classify moved from the far node to the near one under load. Uses tools/demo's variables and functions.

two_nodes_network() {
  near_ns=weft-demo-near-$$ far_ns=weft-demo-far-$$
  namespaces+=("$near_ns" "$far_ns")
  ip netns add "$near_ns"
  ip netns add "$far_ns"
  ip -n "$near_ns" link add weft0 type veth peer name weft0 netns "$far_ns"
  ip -n "$near_ns" addr add 10.77.0.1/24 dev weft0
  ip -n "$far_ns" addr add 10.77.0.2/24 dev weft0
  local ns
  for ns in "$near_ns" "$far_ns"; do
    ip -n "$ns" link set lo up
    ip -n "$ns" link set weft0 up
  done
}

# node_settings NODE ADDRESS: its weftd.yaml and its certificate.
node_settings() {
  local dir=$run/$1
  mkdir "$dir" "$dir"/{run,agent,control}
  chmod 1777 "$dir/run"
  chown "$agent_uid" "$dir/agent"
  chown "$control_uid" "$dir/control"
  "$run/bin/weftctl" ca issue "$run/ca" "$1" --out "$dir" >/dev/null
  chown "$agent_uid" "$dir/$1-key.pem"
  cat >"$dir/weftd.yaml" <<EOF
node: $1
listen: $2:4810
interface: weft0
identity: {certificate: $dir/$1.pem, key: $dir/$1-key.pem, ca: $run/ca/ca.pem}
control_user: $control_uid
admit:
  - {tenant: scale, user: ${uid[a]}, hosts: [a], serve: ["vision/scale"]}
  - {tenant: classify, user: ${uid[b]}, hosts: [b], serve: ["vision/classify"]}
  - {tenant: tally, user: ${uid[d]}, hosts: [d], serve: ["vision/tally"]}
EOF
}

# two_nodes_mesh NODE...: the mesh file of both, with vision/classify on those nodes.
two_nodes_mesh() {
  local node file=$run/two-nodes.yaml
  cat >"$file" <<EOF
version: 1
nodes:
  - {name: near, address: "10.77.0.1:4810", zone: a}
  - {name: far, address: "10.77.0.2:4810", zone: b}
functions:
  - name: vision/scale
  - name: vision/classify
  - {name: vision/tally, state: keep}
endpoints:
  - {function: vision/scale, node: near, host: a, module: $run/modules/scale.wasm}
  - {function: vision/tally, node: near, host: d, module: $run/modules/tally.wasm}
EOF
  for node in "$@"; do
    echo "  - {function: vision/classify, node: $node, host: b, module: $run/modules/classify.wasm}" >>"$file"
  done
  for node in near far; do
    cp "$file" "$run/$node/mesh.yaml.new"
    mv "$run/$node/mesh.yaml.new" "$run/$node/mesh.yaml"
  done
}

# start_in CAPABILITIES NAMESPACE NODE UID LOG PROGRAM ARGUMENTS...: as start does, in a network namespace and a node's run
# directory, with capabilities as in -all,+net_raw.
start_in() {
  local caps=$1 ns=$2 node=$3 user=$4 log=$5; shift 5
  ip netns exec "$ns" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
    --inh-caps="$caps" --ambient-caps="$caps" --bounding-set="$caps" \
    "$run/bin/$1" "${@:2}" --run-dir "$run/$node/run" >"$run/$node-$log.log" 2>&1 &
  pids+=($!)
}

# start_control NODE NAMESPACE: weft-control, which steers the interface where it has a BPF file system to pin in.
start_control() {
  local arguments=(weft-control --source "$run/$1/mesh.yaml" --state-dir "$run/$1/control")
  if mkdir "$run/$1/run/bpf" && mount -t bpf -o mode=0700 bpf "$run/$1/run/bpf" 2>/dev/null; then
    mounts+=("$run/$1/run/bpf")
    chown "$control_uid" "$run/$1/run/bpf"
    start_in -all,+bpf,+net_admin "$2" "$1" "$control_uid" control "${arguments[@]}" --steer weft0 --agent-user "$agent_uid"
    sleep 1
    kill -0 "${pids[-1]}" 2>/dev/null && return
    echo "the $1 node is not steered: $(tail -n 1 "$run/$1-control.log")"
  fi
  start_in -all "$2" "$1" "$control_uid" control "${arguments[@]}"
}

# start_node NODE NAMESPACE HOST...
start_node() {
  local node=$1 ns=$2 host; shift 2
  start_in -all,+net_raw,+ipc_lock "$ns" "$node" "$agent_uid" weftd weftd --config "$run/$node/weftd.yaml" \
    --state-dir "$run/$node/agent"
  wait_for "weftd of the $node node" node_ctl "$node" status
  start_control "$node" "$ns"
  for host in "$@"; do
    mkdir -m 0700 "$run/$node/cache-$host"
    chown "${uid[$host]}" "$run/$node/cache-$host"
    start_in -all "$ns" "$node" "${uid[$host]}" "host-$host" weft-host --name "$host" --cache-dir "$run/$node/cache-$host"
  done
}

node_ctl() { "$run/bin/weftctl" --run-dir "$run/$1/run" "${@:2}"; }
reaches() { node_ctl "$1" get nodes -o json | grep -q '"reachable"'; }
# node_serves NODE FUNCTION HOST: ready on that host of that very node.
node_serves() {
  node_ctl "$1" get functions | awk -v name="$2" -v host="$3" '$1 == name && $2 > 0 && $3 == host {found = 1} END {exit !found}'
}
# digits_load LOG RATE SECONDS: what it prints is kept in that log.
digits_load() {
  "$run/bin/digits-client" load --run-dir "$run/near/run" --images examples/digits/data/digits.csv.gz --rate "$2" \
    --seconds "$3" | tee "$run/$1.log"
}
# chain_latency NODE WHERE: one image after the other, when everything on the way is awake, then at a rate at which most of it
# has gone to sleep when the next comes.
chain_latency() {
  say "vision/classify $2, one image after the other"
  digits_load "$1-in-turn" 0 2
  say "vision/classify $2, 1,000 calls/s"
  digits_load "$1-paced" 1000 2
}

# What a call between guests of two nodes takes, and what its wire takes at least: rows of weft-bench, which starts two nodes
# of its own on another such pair of interfaces. Without AF_XDP its rows fail, and the others stand.
two_nodes_table() {
  local rows='limit/udp_spin|kernel/tcp|weft/guest_to_guest_inside_udp' port
  port=$(node_ctl near status | awk '$1 == "packet_port" {print $2; exit}')
  [[ $port == af_xdp ]] && rows='limit/af_xdp_raw|limit/udp_spin|kernel/tcp|weft/guest_to_guest_shared'
  "$built/bin/weft-bench" remote --quick --seconds "$remote_seconds" --filter "^($rows)\$" --json "$remote_figures" ||
    [[ $port != af_xdp ]] || fail "a row of the table failed"
}

# The chain before and after the move, from their logs, and one call of it beside the limits, from both tables.
two_nodes_summary() {
  python3 - "$figures" "$remote_figures" "$run" <<'EOF'
import json, re, sys

def show(what, p50, p99, p999):
    print("%-66s %10s %10s %10s" % (what, *("-" if ns is None else "%.2f us" % (ns / 1e3) for ns in (p50, p99, p999))))

rows = {}
for path in sys.argv[1:3]:
    with open(path) as file:
        rows.update({row["name"]: row for row in json.load(file)["rows"] if "error" not in row})
print("%-66s %10s %10s %10s" % ("", "p50", "p99", "p99.9"))
for pace, text in (("in-turn", "one after the other"), ("paced", "1,000 calls/s")):
    for place in "far", "near":
        with open("%s/%s-%s.log" % (sys.argv[3], place, pace)) as file:
            times = re.search(r"p50 ([\d.]+) us, p99 ([\d.]+) us, p99.9 ([\d.]+) us", file.read())
        show("the chain, vision/classify on the %s node, %s" % (place, text), *(float(us) * 1e3 for us in times.groups()))
for name, what in (
        ("weft/guest_to_guest_shared", "one call between guests of two nodes, encrypted, by AF_XDP"),
        ("weft/guest_to_guest_inside_udp", "one call between guests of two nodes, encrypted, by UDP"),
        ("limit/af_xdp_raw", "limit between two nodes, unencrypted (limit/af_xdp_raw)"),
        ("weft/guest_to_guest", "one call between guests of one node"),
        ("limit/shm_spin", "limit on one node (limit/shm_spin)")):
    if name in rows:
        show(what, *(rows[name][place] for place in ("p50_ns", "p99_ns", "p999_ns")))
EOF
}

two_nodes() {
  say "two nodes: network namespaces joined by a veth pair, a node in each, certificates by weftctl ca"
  "$run/bin/weftctl" ca init "$run/ca" --trust-domain demo.example >/dev/null
  chmod 755 "$run/ca"
  two_nodes_network
  node_settings near 10.77.0.1
  node_settings far 10.77.0.2
  two_nodes_mesh far
  start_node near "$near_ns" a b d
  start_node far "$far_ns" b
  wait_for "the far node" reaches near
  wait_for "the near node" reaches far
  wait_for "vision/classify on the far node" node_serves far vision/classify b
  wait_for "vision/scale" node_serves near vision/scale a
  wait_for "vision/tally" node_serves near vision/tally d
  node_ctl near get nodes
  node_ctl near status | grep -E '^ *(packet_port|packet_port_why|nodes_reachable) '

  say "the same 360 digits, vision/classify on the far node: near -> far -> near, every packet encrypted"
  "$run/bin/digits-client" check --run-dir "$run/near/run" --images examples/digits/data/digits.csv.gz

  say "a call over two nodes, encrypted, beside the limits of the wire (rows take turns in this run)"
  two_nodes_table

  chain_latency far "far away"
  say "moved to the near node under load: its endpoint there is added, then the far one taken away"
  digits_load move 1000 "$load_seconds" &
  local load=$!
  sleep 1
  two_nodes_mesh far near
  wait_for "vision/classify on the near node" node_serves near vision/classify b
  sleep 0.2  # What the far node still answers.
  two_nodes_mesh near
  wait "$load" || fail "calls failed during the move between nodes"
  chain_latency near "near by"
  say "what the move gained, beside what one call takes and the limits that it is judged by"
  two_nodes_summary
}
