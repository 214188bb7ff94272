#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""systemd's units start programs that exist, with options that they have, and tell systemd what these really do.

usage: units_test.py PACKAGING_DIR BIN_DIR
"""
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile



def paused(command, result):
    """Whether ExecStopPost, run as systemd runs it after a service that ended so, sleeps for a second."""
    words = [word.replace('$$', '$') for word in shlex.split(command)]
    with tempfile.TemporaryDirectory() as folder:
        sleep, slept = pathlib.Path(folder) / 'sleep', pathlib.Path(folder) / 'slept'
        sleep.write_text(f'#!/bin/sh\necho "$1" > {slept}\n')
        sleep.chmod(0o755)
        environment = {'SERVICE_RESULT': result, 'PATH': f'{folder}:/usr/bin:/bin'}
        done = subprocess.run(words or ['false'], env=environment, check=False)
        return done.returncode == 0 and slept.exists() and slept.read_text() == '1\n'


packaging, programs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
units = sorted(packaging.glob('*.service'))
failures = []
if [unit.name for unit in units] != ['weft-control.service', 'weft-host@.service', 'weftd.service']:
    failures.append(f'units are {[unit.name for unit in units]}')
for unit in units:
    settings = dict(re.findall(r'^(\w+)=(.*)$', unit.read_text(), re.MULTILINE))
    words = settings['ExecStart'].split()
    program = programs / pathlib.Path(words[0]).name
    told = subprocess.run([program, '--help'], capture_output=True, text=True, check=True).stdout
    for option in [word for word in words[1:] if word.startswith('--')]:
        if not re.search(rf'{option}\b', told):
            failures.append(f'{unit.name}: {program.name} has no option {option}')
    # What is not a comment, a section or a setting is a mistake that systemd would only warn of.
    for number, line in enumerate(unit.read_text().splitlines(), 1):
        if line and not re.match(r'#|\[(Unit|Service|Install)\]$|[A-Z]\w*=', line):
            failures.append(f'{unit.name}:{number}: {line}')
    for needed in ('Type', 'User', 'Restart', 'NoNewPrivileges', 'CapabilityBoundingSet'):
        if needed not in settings:
            failures.append(f'{unit.name}: no {needed}=')
    if settings.get('Restart') != ('on-failure' if unit.name == 'weft-host@.service' else 'always'):
        failures.append(f'{unit.name}: daemons always come back, a host unless it was drained')
    # By default systemd gives a unit up after five starts within 10 s: half a second of being refused.
    if not re.search(r'^StartLimitIntervalSec=0$', unit.read_text().split('[Service]')[0], re.MULTILINE):
        failures.append(f'{unit.name}: it is to be tried for ever')
    for result, waits in (('exit-code', True), ('signal', False), ('watchdog', False), ('success', False)):
        if paused(settings.get('ExecStopPost', ''), result) != waits:
            failures.append(f'{unit.name}: after "{result}" it {"does not wait" if waits else "waits"}')
    if settings.get('Type') != 'notify':
        failures.append(f'{unit.name}: every program of weft reports to systemd')
# What systemd itself thinks of them, where it is there: of programs that exist.
if shutil.which('systemd-analyze'):
    with tempfile.TemporaryDirectory() as folder:
        for unit in units:
            text = unit.read_text().replace('/usr/bin/', f'{programs}/')
            (pathlib.Path(folder) / unit.name).write_text(text)
        copies = [str(path) for path in sorted(pathlib.Path(folder).iterdir())]
        said = subprocess.run(['systemd-analyze', 'verify', '--man=no', '--recursive-errors=no', *copies],
                              capture_output=True, text=True, check=False)
        complaints = [line for line in said.stderr.splitlines() if folder in line or 'weft' in line]
        if said.returncode != 0 or complaints:
            failures.append('systemd-analyze verify:\n' + said.stderr)
print('\n'.join(failures) or f'{len(units)} units')
sys.exit(1 if failures else 0)
