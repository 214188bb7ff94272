#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lint rules find what they are for, and the tree keeps them."""
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'lint'))
import layers  # noqa: E402
import text  # noqa: E402


class LayersTest(unittest.TestCase):
    def tree(self, files):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        root = pathlib.Path(self.directory.name)
        for name in ('bpf', 'dataplane', 'control'):
            (root / name).mkdir()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        return root

    def test_upward_include_is_named_with_file_and_line(self):
        root = self.tree({'dataplane/base/a.h': '\n#include "dataplane/call/b.h"\n'})
        self.assertEqual(layers.check(root), ['dataplane/base/a.h:2: dataplane/base may not use dataplane/call'])

    def test_sideways_include_is_found(self):
        root = self.tree({'dataplane/route/a.cc': '#include "dataplane/channel/b.h"\n'})
        self.assertEqual(len(layers.check(root)), 1)

    def test_row_of_a_row_is_allowed(self):
        root = self.tree({'dataplane/client/a.cc': '#include "dataplane/channel/b.h"\n#include "dataplane/base/c.h"\n'})
        self.assertEqual(layers.check(root), [])

    def test_shipping_code_may_not_use_tests(self):
        root = self.tree({'control/model/a.cc': '#include "tests/support/x.h"\n'})
        self.assertEqual(len(layers.check(root)), 1)

    def test_a_packet_library_named_outside_of_the_ports_is_found(self):
        root = self.tree({'dataplane/engine/a.cc': '#include <rte_ethdev.h>\n', 'dataplane/port/a.cc': 'rte_eal_init();\n'})
        self.assertEqual(len(layers.check(root)), 1)

    def test_folder_without_a_row_is_found(self):
        root = self.tree({'dataplane/new/a.cc': '\n'})
        self.assertEqual(len(layers.check(root)), 1)


class TreeTest(unittest.TestCase):
    def test_layers_hold(self):
        self.assertEqual(layers.check(ROOT), [])

    def test_text_rules_hold(self):
        self.assertEqual(text.check(ROOT), [])

    def test_long_function_is_found(self):
        lines = ['int F() {'] + ['  x();'] * 80 + ['}']
        self.assertEqual(len(list(text.long_functions('a.cc', lines))), 1)

    def test_a_header_behind_another_in_its_own_source_is_found(self):
        path = pathlib.Path('control/model/a.cc')
        late = ['// What it is.', '#include <vector>', '#include "control/model/a.h"']
        self.assertEqual(list(text.own_header_late(path, late)),
                         ['control/model/a.cc:2: #include "control/model/a.h" must be the first include'])
        self.assertEqual(list(text.own_header_late(path, late[2:] + late[:2])), [])


if __name__ == '__main__':
    unittest.main()
