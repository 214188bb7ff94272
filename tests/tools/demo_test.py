#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""demo_test.py PORT PROGRAM ARGUMENTS...: runs tools/demo as told. It fails where any of its calls does; here its output is judged
too: the port between nodes, the tables of both parts, with figures in them, and what the move between nodes came to."""
import os
import re
import subprocess
import sys

TIME = r"[\d.]+ (?:ns|us|ms)"
RARE = rf"(?:{TIME}|-)"  # A p99.9, for which a machine that is busy elsewhere makes too few calls.


def row(name):
    """A line of a table of weft-bench: payload, p50, p99, p99.9, messages, CPU a message."""
    return rf"(?m)^{re.escape(name)} +64 B +{TIME} +{TIME} +{RARE} +[\d.]+ [kM]?/s +{TIME} "


def summary(text):
    return rf"(?m)^{text} +{TIME} +{TIME} +{RARE}$"


def main():
    # Without the right to load an XDP program, packets go by UDP.
    less = ["setpriv", "--bounding-set=-bpf", "--inh-caps=-bpf"] if sys.argv[1] == "io_uring" and os.geteuid() == 0 else []
    ran = subprocess.run(less + sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(ran.stdout)
    if ran.returncode != 0:
        return ran.returncode
    by_af_xdp = sys.argv[1] == "af_xdp"
    way = "shared" if by_af_xdp else "inside_udp"
    wanted = {f"the row of {name}": row(name) for name in
              ("weft/guest_to_guest_" + way, "limit/udp_spin", "kernel/tcp")
              + (("limit/af_xdp_raw",) if by_af_xdp else ())}
    wanted["that packets go by " + sys.argv[1]] = rf"(?m)^ *packet_port +{sys.argv[1]} "
    wanted["why that port was chosen"] = r"(?m)^ *packet_port_why "
    for place in ("far", "near"):
        wanted[f"the chain with the {place} node"] = summary(rf"the chain, vision/classify on the {place} node.*")
    wanted["one call over two nodes"] = summary("one call between guests of two nodes, encrypted.*")
    wanted["one call on one node"] = summary("one call between guests of one node")
    wanted["the limit on one node"] = summary(r"limit on one node \(limit/shm_spin\)")
    missing = [what for what, pattern in wanted.items() if not re.search(pattern, ran.stdout)]
    failed = re.findall(r"(?m)^calls failed +([1-9]\d*)$", ran.stdout)
    for what in missing:
        print(f"demo_test: tools/demo did not show {what}")
    return 1 if missing or failed else 0


sys.exit(main())
