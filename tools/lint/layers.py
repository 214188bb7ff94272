#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on an include that breaks the layering, naming file and line.

A folder may include its own headers, those of the folders in its row, and whatever those rows allow. `bench`, `tests`
and `tools` may use everything. A path that names no folder of the tree (system and library headers, generated *.pb.h
aside) is not looked at.
"""
import pathlib
import re
import sys

ROWS = {
    'bpf/abi': [],
    'bpf/lib': ['bpf/abi'],
    'bpf': ['bpf/lib', 'bpf/abi'],
    'dataplane/base': [],
    'dataplane/api': [],
    'dataplane/config': ['dataplane/base'],
    'dataplane/channel': ['dataplane/base'],
    'dataplane/route': ['dataplane/base'],
    'dataplane/call': ['dataplane/channel', 'dataplane/route'],
    'dataplane/transport': ['dataplane/base', 'bpf/abi'],
    'dataplane/port': ['dataplane/base', 'bpf/abi'],
    'dataplane/identity': ['dataplane/base'],
    'dataplane/engine': ['dataplane/client', 'dataplane/transport', 'dataplane/port'],
    'dataplane/agent': ['dataplane/engine', 'dataplane/channel', 'dataplane/identity', 'dataplane/api',
                        'dataplane/config'],
    'dataplane/client': ['dataplane/call', 'dataplane/api'],
    'dataplane/host': ['dataplane/client', 'dataplane/engine', 'dataplane/config'],
    'dataplane/gateway': ['dataplane/client'],
    'control/model': ['dataplane/base', 'dataplane/api'],
    'control/source': ['control/model', 'dataplane/config'],
    'control/source/etcd': ['control/source'],
    'control/source/kubernetes': ['control/source'],
    'control/source/propeller': ['control/source', 'dataplane/client'],
    'control/config': ['control/source/etcd', 'control/source/kubernetes', 'control/source/propeller'],
    'control/publish': ['control/model', 'dataplane/api'],
    'control/bpf': ['bpf', 'dataplane/port'],
    'control/daemon': ['control/config', 'control/publish', 'control/bpf', 'dataplane/config'],
}
FREE = ('bench', 'tests', 'tools')
# What only one folder may name.
PRIVATE = {'dataplane/port': re.compile(r'\b(?:rte|xsk|io_uring)_[a-z]')}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
# The public headers of libweft are included by their published names.
ALIASES = {'weft/': 'dataplane/client/weft/'}


def folder_of(path):
    """The row that a path of the tree belongs to: the longest row that is its beginning."""
    parts = path.split('/')
    for n in range(len(parts) - 1, 0, -1):
        if '/'.join(parts[:n]) in ROWS:
            return '/'.join(parts[:n])
    return None


def allowed(folder, seen=None):
    seen = set() if seen is None else seen
    if folder not in seen:
        seen.add(folder)
        for other in ROWS[folder]:
            allowed(other, seen)
    return seen


def check(root):
    """Returns the list of breaches as 'file:line: text'."""
    breaches = []
    for pattern in ('bpf', 'dataplane', 'control'):
        for path in sorted((root / pattern).rglob('*')):
            if path.suffix not in ('.h', '.hpp', '.cc', '.c') or not path.is_file():
                continue
            name = path.relative_to(root).as_posix()
            folder = folder_of(name)
            if folder is None:
                breaches.append(f'{name}:1: this folder has no row in tools/lint/layers.py')
                continue
            permitted = allowed(folder)
            for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
                for owner, names in PRIVATE.items():
                    if folder != owner and names.search(line):
                        breaches.append(f'{name}:{number}: only {owner} may name {names.search(line).group(0)}…')
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                for alias, real in ALIASES.items():
                    if target.startswith(alias):
                        target = real + target[len(alias):]
                if target.split('/')[0] in FREE and '/' in target:
                    breaches.append(f'{name}:{number}: {folder} may not use {target.split("/")[0]}')
                    continue
                other = folder_of(target)
                if other is not None and other not in permitted:
                    breaches.append(f'{name}:{number}: {folder} may not use {other}')
    return breaches


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else '.').resolve()
    breaches = check(root)
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == '__main__':
    sys.exit(main())
