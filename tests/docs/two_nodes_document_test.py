#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/two-nodes.md: its commands for certificates run, and what weftd, weftctl and systemd are given there is what they take.

usage: two_nodes_document_test.py BIN_DIRECTORY
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from run_document import ROOT, steps

BINARIES = pathlib.Path(sys.argv.pop(1)).resolve()
DOCUMENT = (ROOT / 'docs' / 'two-nodes.md').read_text()


class TwoNodesTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix='weft-two-nodes-')
        self.addCleanup(directory.cleanup)
        self.etc = pathlib.Path(directory.name)
        for kind, first, second in steps(DOCUMENT):
            if kind == 'run':
                self.run_here(first)
            else:
                (self.etc / first).write_text(self.here(second))
        for file in (self.etc / 'ca').iterdir():
            file.rename(self.etc / file.name)

    # With a directory and users that there are.
    def here(self, text):
        return re.sub(r'\bweft-(web|control)\b', str(os.getuid()), text.replace('/etc/weft', str(self.etc)))

    def run_here(self, command):
        environment = dict(os.environ, PATH=f'{BINARIES}:{os.environ["PATH"]}')
        ran = subprocess.run(['bash', '-e', '-c', self.here(command)], env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, command + ran.stdout + ran.stderr)
        return ran.stdout

    def test_weftd_takes_its_settings(self):
        self.assertIn('good', self.run_here('weftd --check --config /etc/weft/weftd.yaml'))

    def test_the_mesh_is_valid_and_names_the_nodes_by_their_addresses(self):
        self.assertIn('good: 2 nodes, 1 function, 1 endpoint', self.run_here('weftctl validate /etc/weft/mesh.yaml'))
        listen = re.search(r'listen: (\S+)', DOCUMENT)[1]
        self.assertIn(f'{{name: n1, address: "{listen}"', DOCUMENT)

    def test_units_have_what_it_adds_to(self):
        packaging = ROOT / 'tools' / 'packaging'
        for variable, file, unit in (('WEFT_CONTROL_OPTIONS', 'weft-control.env', 'weft-control.service'),
                                     ('WEFT_HOST_SERVE', 'host-%i.env', 'weft-host@.service')):
            text = (packaging / unit).read_text()
            self.assertIn(f"echo '{variable}=", DOCUMENT)
            self.assertIn(f'EnvironmentFile=-/etc/weft/{file}', text)
            self.assertIn(f'${variable}', text)

    def test_the_file_system_is_mounted_as_steer_says(self):
        line = re.search(r'ExecStartPre=.*', DOCUMENT)[0]
        self.assertIn(line, (ROOT / 'docs' / 'steer.md').read_text())


if __name__ == '__main__':
    unittest.main()
