#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a tutorial as its reader would: run_document.py DOCUMENT BIN_DIRECTORY.

In the document, `<!-- file: NAME -->` before a fenced block says that the reader saves the block under that name. Blocks
fenced as `sh` are typed into one shell, in order, in an empty directory; a block fenced as `text` right after one is what the
reader is told to see, and each of its lines must appear in what the shell printed for it, in order. A block marked
`<!-- not run -->` is skipped: for what the test has done in another way, as building weft itself.
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'(?:<!-- (file: (?P<file>\S+)|(?P<skip>not run)) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```', re.M | re.S)
SECONDS_MAX = 120


def steps(document):
    """Yields (command block, lines expected of it); writes no file and runs nothing."""
    pending = None
    for match in BLOCK.finditer(document):
        if match['skip']:
            continue
        if match['file']:
            yield 'file', match['file'], match['text']
        elif match['kind'] == 'sh':
            if pending is not None:
                yield 'run', pending, []
            pending = match['text']
        elif match['kind'] == 'text':
            if pending is None:
                raise SystemExit('a text block without a command before it')
            yield 'run', pending, match['text'].splitlines()
            pending = None
    if pending is not None:
        yield 'run', pending, []


def appears_in_order(wanted, printed):
    lines = iter(printed)
    return all(any(want.strip() in line for line in lines) for want in wanted if want.strip())


def main():
    document, binaries = pathlib.Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory(prefix='weft-document-') as directory:
        os.chmod(directory, 0o755)
        environment = dict(os.environ, PATH=f'{binaries}:{os.environ["PATH"]}', WEFT=str(ROOT))
        shell = subprocess.Popen(['bash', '-e'], cwd=directory, env=environment, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(shell.pid, signal.SIGKILL))
        signal.alarm(SECONDS_MAX)
        try:
            ran = 0
            for kind, first, second in steps(document.read_text()):
                if kind == 'file':
                    (pathlib.Path(directory) / first).write_text(second)
                    continue
                ran += 1
                shell.stdin.write(f'{first}\necho "== end {ran}"\n')
                shell.stdin.flush()
                printed = []
                for line in shell.stdout:
                    if line == f'== end {ran}\n':
                        break
                    printed.append(line.rstrip('\n'))
                else:
                    print('\n'.join(printed))
                    raise SystemExit(f'the shell ended in:\n{first}')
                print(f'$ {first}' + '\n'.join(printed))
                if not appears_in_order(second, printed):
                    raise SystemExit(f'expected, in this order:\n' + '\n'.join(second))
            if ran == 0:
                raise SystemExit('the document has nothing to run')
        finally:
            # Everything that the document started belongs to the shell's session.
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


if __name__ == '__main__':
    main()
