#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""corpus.py unpack FILE DIR | corpus.py pack DIR FILE: between the committed corpus, a line of hex an input, and a
directory as libFuzzer wants it."""
import pathlib
import sys

if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
    sys.exit(__doc__)
if sys.argv[1] == "unpack":
    target = pathlib.Path(sys.argv[3])
    target.mkdir(parents=True, exist_ok=True)
    lines = [l for l in pathlib.Path(sys.argv[2]).read_text().split() if not l.startswith("#")]
    for number, line in enumerate(lines):
        (target / f"{number:04}").write_bytes(bytes.fromhex(line))
else:
    inputs = {p.read_bytes().hex() for p in pathlib.Path(sys.argv[2]).iterdir() if p.stat().st_size > 0}
    pathlib.Path(sys.argv[3]).write_text("".join(line + "\n" for line in sorted(inputs, key=lambda l: (len(l), l))))
