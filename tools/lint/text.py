#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Textual rules: an SPDX line first, a source's own header before others, no function over 70 lines, no unfinished words, no path of one machine.

Functions longer than the limit are listed in LONG with their length today; the list may only shrink.
"""
import pathlib
import re
import subprocess
import sys

FUNCTION_LINES_MAX = 70
# file:function-start-text → lines today. A ratchet: shorten, never lengthen, never add.
LONG = {}
CODE = ('.h', '.hpp', '.cc', '.c', '.rs', '.py', '.sh', '.cmake', '.proto')
UNFINISHED = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
MACHINE_PATH = re.compile(r'(?<![\w.$}])/(?:work|home|root)/')


def tracked(root):
    names = subprocess.run(['git', '-C', str(root), 'ls-files', '-co', '--exclude-standard'], check=True,
                           capture_output=True, text=True).stdout.split('\n')
    return [n for n in names if n and (root / n).is_file()]


def long_functions(name, lines):
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and re.match(r'^[A-Za-z_].*\)[^;]*\{\s*$', line):
            start = number
        elif start is not None and line.startswith('}'):
            if number - start > FUNCTION_LINES_MAX and LONG.get(f'{name}:{lines[start - 1]}', 0) < number - start:
                yield f'{name}:{start}: function of {number - start} lines; the limit is {FUNCTION_LINES_MAX}'
            start = None


def own_header_late(path, lines):
    """At the head of its source a header is seen to compile alone; target header_check has only those without one."""
    own = f'#include "{path.with_suffix(".h")}"'
    for number, line in enumerate(lines, 1):
        if line.startswith('#include'):
            if line != own:
                yield f'{path}:{number}: {own} must be the first include'
            return


def check(root):
    found = []
    for name in tracked(root):
        path = pathlib.Path(name)
        is_code = path.suffix in CODE or name.startswith('tools/') and path.suffix == ''
        if not is_code:
            continue
        lines = (root / name).read_text(errors='replace').split('\n')
        if not any('SPDX-License-Identifier: ' in line for line in lines[:3]):
            found.append(f'{name}:1: no SPDX-License-Identifier in the first three lines')
        if name.startswith('bpf/') and not any('GPL-2.0 OR Apache-2.0' in line for line in lines[:3]):
            found.append(f'{name}:1: files of bpf/ are licensed GPL-2.0 OR Apache-2.0')
        if path.suffix in ('.cc', '.h', '.c', '.hpp'):
            found.extend(long_functions(name, lines))
        if path.suffix == '.cc' and (root / name).with_suffix('.h').is_file():
            found.extend(own_header_late(path, lines))
        for number, line in enumerate(lines, 1):
            if name != 'tools/lint/text.py' and UNFINISHED.search(line):
                found.append(f'{name}:{number}: unfinished word')
            if name != 'tools/lint/text.py' and MACHINE_PATH.search(line):
                found.append(f'{name}:{number}: path of one machine')
    return found


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else '.').resolve()
    found = check(root)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
