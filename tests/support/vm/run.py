#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots a kernel in a virtual machine without KVM, runs one program in it as root, and ends with its exit status.

The machine is QEMU's emulated processor; its file system is an initramfs with busybox, the program, what else was asked
for, and the shared libraries of all. 77 where QEMU, busybox or the kernel is not there: ctest shows that as skipped.
"""
import argparse
import gzip
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SKIP = 77
EXIT_LINE = 'weft-vm-exit:'
INIT = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /run
mount -t tmpfs shm /dev/shm
ip link set lo up
for module in {modules}; do insmod "$module" || echo "weft-vm: no module $module"; done
echo "weft-vm: $(uname -r)"
{command}
echo "{exit_line} $?"
sync
poweroff -f
'''


class Archive:
    """A cpio archive in the kernel's format (newc)."""

    def __init__(self):
        self.parts, self.names, self.inode = [], set(), 0

    def add(self, name, mode, data=b''):
        if name in self.names:
            return
        parent = str(pathlib.PurePosixPath(name).parent)
        if parent not in ('.', '/', ''):
            self.add(parent, 0o040755)
        self.names.add(name)
        self.record(name, mode, data)

    def record(self, name, mode, data):
        self.inode += 1
        path = name.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        head = b'070701' + b''.join(b'%08X' % f for f in fields) + path
        self.parts += [head, b'\0' * (-len(head) % 4), data, b'\0' * (-len(data) % 4)]

    def add_file(self, source, name, executable=True):
        self.add(name, 0o100755 if executable else 0o100644, pathlib.Path(source).read_bytes())

    def finish(self):
        self.record('TRAILER!!!', 0, b'')
        return b''.join(self.parts)


def libraries(program):
    """The shared libraries of a program and its loader, as absolute paths."""
    told = subprocess.run(['ldd', program], capture_output=True, text=True, check=False).stdout
    return re.findall(r'(?:=> )?(/\S+) \(0x', told)


def with_dependencies(modules_folder, names):
    """Paths of modules in the order to load them, relative to the folder."""
    needs = {}
    for path in modules_folder.rglob('*.ko*'):
        stem = path.name.split('.ko')[0].replace('-', '_')
        needs[stem] = path
    order = []

    def visit(name):
        path = needs.get(name.replace('-', '_'))
        if path is None:
            return  # Built in.
        # A module names what it needs in a string of its own: "depends=a,b".
        depends = re.search(rb'\0depends=([^\0]*)\0', path.read_bytes())
        for other in filter(None, depends.group(1).decode().split(',') if depends else []):
            visit(other)
        if path not in order:
            order.append(path)

    for name in names:
        visit(name)
    return order


def build_initramfs(arguments, kernel):
    archive = Archive()
    for folder in ('proc', 'sys', 'dev', 'tmp', 'run', 'sbin', 'bin', 'etc'):
        archive.add(folder, 0o040755)
    archive.add_file(shutil.which('busybox'), 'bin/busybox')
    programs = [(arguments.program, 'test/' + pathlib.Path(arguments.program).name)]
    programs += [(path, path.lstrip('/')) for path in arguments.also]
    for source, name in programs:
        archive.add_file(source, name)
        for library in libraries(source):
            archive.add_file(library, library.lstrip('/'))
    modules = with_dependencies(kernel / 'modules', arguments.module)
    for path in modules:
        archive.add_file(path, 'modules/' + path.name, executable=False)
    command = ' '.join(["/" + programs[0][1]] + [f"'{word}'" for word in arguments.arguments])
    init = INIT.format(modules=' '.join('/modules/' + path.name for path in modules), command=command,
                       exit_line=EXIT_LINE)
    archive.add('init', 0o100755, init.encode())
    return gzip.compress(archive.finish(), compresslevel=1)


def boot(arguments, kernel, initramfs):
    with tempfile.NamedTemporaryFile(suffix='.cpio.gz') as image:
        image.write(initramfs)
        image.flush()
        command = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-m', str(arguments.memory), '-smp', '1',
                   '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio', '-kernel', kernel / 'vmlinuz',
                   '-initrd', image.name, '-append', 'console=ttyS0 quiet panic=-1']
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   errors='replace')
        try:
            told, _ = machine.communicate(timeout=arguments.timeout)
        except subprocess.TimeoutExpired:
            machine.kill()
            told, _ = machine.communicate()
            print(told)
            print(f'weft-vm: no end within {arguments.timeout} s')
            return 1
    print(told)
    status = re.search(rf'^{EXIT_LINE} (\d+)', told, re.MULTILINE)
    if status is None:
        print('weft-vm: the program did not tell its end')
        return 1
    return int(status.group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kernel', required=True, help='folder made by fetch_kernel')
    parser.add_argument('--also', action='append', default=[], help='another program to take along, e.g. /sbin/ip')
    parser.add_argument('--module', action='append', default=[], help='kernel module to load before, e.g. veth')
    parser.add_argument('--memory', type=int, default=512, help='MiB')
    parser.add_argument('--timeout', type=int, default=100, help='seconds until the machine is switched off')
    parser.add_argument('program')
    parser.add_argument('arguments', nargs='*')
    arguments = parser.parse_args()
    kernel = pathlib.Path(arguments.kernel)
    for needed, there in (('qemu-system-x86_64', shutil.which('qemu-system-x86_64')),
                          ('busybox', shutil.which('busybox')), (kernel / 'vmlinuz', (kernel / 'vmlinuz').exists())):
        if not there:
            print(f'weft-vm: {needed} is not there; tools/setup test brings it')
            return SKIP
    return boot(arguments, kernel, build_initramfs(arguments, kernel))


if __name__ == '__main__':
    sys.exit(main())
