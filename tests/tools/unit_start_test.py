#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The packaged units' ExecStart lines, on the packaged /etc/weft, make a node that works, with the users, folders and capabilities
that the units give them and no others. systemd is not needed: this does what it would, in a mount namespace of its own.

usage: unit_start_test.py PACKAGING_DIR BIN_DIR
"""
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time

CAPABILITIES = {'CAP_NET_ADMIN': 12, 'CAP_NET_RAW': 13, 'CAP_IPC_LOCK': 14, 'CAP_BPF': 39}
# Of the design, and no others
WANTED = {'weftd.service': {'CAP_NET_RAW', 'CAP_IPC_LOCK'}, 'weft-control.service': {'CAP_BPF', 'CAP_NET_ADMIN'}}
USERS = {'weft': 64100, 'weft-control': 64101}
WAIT_S = 30

packaging, programs = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()


def settings_of(name):
    """Of a unit: each setting, the last one where it stands twice."""
    return dict(re.findall(r'^(\w+)=(.*)$', (packaging / name).read_text(), re.MULTILINE))


def mount(*arguments):
    subprocess.run(['mount', *arguments], check=True)


def make_root(folder):
    """Puts users and folders of our own in the place of the machine's."""
    for path in ('/etc/weft', '/run/weft', '/var/lib/weft'):
        source = folder / path.strip('/').replace('/', '-')
        if path == '/etc/weft':
            shutil.copytree(packaging / 'etc', source)
        else:
            source.mkdir()
        if not pathlib.Path(path).exists():
            parent = pathlib.Path(path).parent
            mount('-t', 'overlay', 'overlay', '-o', f'lowerdir={parent},upperdir={upper(folder, parent)},'
                  f'workdir={folder}/work-{parent.name}', str(parent))
            pathlib.Path(path).mkdir()
        mount('--bind', source, path)
    # Last: an overlay would hide them.
    for name in ('passwd', 'group'):
        copy = folder / name
        text = pathlib.Path('/etc', name).read_text().rstrip('\n') + '\n'
        for user, uid in USERS.items():
            text += f'{user}:x:{uid}:{uid}::/:/bin/false\n' if name == 'passwd' else f'{user}:x:{uid}:\n'
        copy.write_text(text)
        mount('--bind', copy, f'/etc/{name}')


def upper(folder, parent):
    made = folder / f'upper-{parent.name}'
    made.mkdir()
    (folder / f'work-{parent.name}').mkdir()
    return made


def make_directory(path, mode, user, group):
    path.mkdir(exist_ok=True)
    shutil.chown(path, user, group)
    path.chmod(int(mode, 8))


class Unit:
    """What a unit's service section says, running."""

    def __init__(self, name, folder):
        self.settings = settings_of(name)
        user, group = self.settings['User'], self.settings['Group']
        for kind, root in (('Runtime', '/run'), ('State', '/var/lib')):
            if f'{kind}Directory' in self.settings:
                make_directory(pathlib.Path(root, self.settings[f'{kind}Directory']),
                               self.settings[f'{kind}DirectoryMode'], user, group)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / f'{name}.notify'))
        os.chmod(folder / f'{name}.notify', 0o777)
        self.notify.settimeout(WAIT_S)
        words = shlex.split(self.settings['ExecStart'])
        words[0] = str(programs / pathlib.Path(words[0]).name)
        words = [word for word in words if not word.startswith('$')]
        capabilities = ['-all'] + [f'+{name[4:].lower()}' for name in self.settings['AmbientCapabilities'].split()]
        allowed = ['-all'] + [f'+{name[4:].lower()}' for name in self.settings['CapabilityBoundingSet'].split()]
        self.log = open(folder / f'{name}.log', 'w+', encoding='utf-8')
        self.process = subprocess.Popen(
            ['setpriv', '--reuid', user, '--regid', group, '--init-groups', '--no-new-privs', '--inh-caps',
             ','.join(capabilities), '--ambient-caps', ','.join(capabilities), '--bounding-set', ','.join(allowed), *words],
            env={'NOTIFY_SOCKET': str(folder / f'{name}.notify'), 'PATH': '/usr/bin:/bin'}, stdout=self.log,
            stderr=subprocess.STDOUT)

    def wait_ready(self):
        while True:
            told = self.notify.recv(65536).decode()
            if 'READY=1' in told:
                return

    def output(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def capabilities(self):
        status = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        return {key: int(value, 16) for key, value in re.findall(r'^(Cap\w+):\s+(\w+)$', status, re.MULTILINE)}

    def stop(self):
        self.process.terminate()
        return self.process.wait(WAIT_S)


def ctl(*arguments):
    return subprocess.run([programs / 'weftctl', *arguments], capture_output=True, text=True, check=False)


def wait_for(arguments, text):
    until = time.monotonic() + WAIT_S
    while text not in ctl(*arguments).stdout:
        if time.monotonic() > until:
            raise AssertionError(f'weftctl {" ".join(arguments)}: no "{text}" in {ctl(*arguments)}')
        time.sleep(0.05)


def check(folder):
    make_root(folder)
    units = []
    try:
        for name, wanted_names in WANTED.items():
            units.append(Unit(name, folder))
            units[-1].wait_ready()
            has, wanted = units[-1].capabilities(), sum(1 << CAPABILITIES[one] for one in wanted_names)
            assert all(has[each] == wanted for each in ('CapEff', 'CapPrm', 'CapAmb', 'CapBnd')), (name, has, wanted)
        wait_for(['get', 'nodes'], 'n1')
        # A mesh file that comes is programmed.
        pathlib.Path('/etc/weft/mesh.d/more.yaml').write_text('version: 1\nfunctions: [{name: a/b}]\n')
        wait_for(['get', 'functions'], 'a/b')
        for unit in units:
            assert unit.process.poll() is None
        assert [unit.stop() for unit in reversed(units)] == [0, 0]
    except BaseException:
        for unit in units:
            unit.process.kill()
            print(unit.output())
        raise


def main():
    if os.geteuid() != 0:
        print('run it as root')
        return
    if os.environ.get('WEFT_OWN_MOUNTS') != '1':
        os.environ['WEFT_OWN_MOUNTS'] = '1'
        os.execvp('unshare', ['unshare', '--mount', '--propagation', 'private', sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        # Of its own, so that overlays can lie on it, and that nothing of it is left.
        mount('-t', 'tmpfs', '-o', 'mode=0755', 'tmpfs', folder)
        try:
            check(pathlib.Path(folder))
        finally:
            subprocess.run(['umount', '--lazy', folder], check=False)
    print('a node by the packaged units')


main()
