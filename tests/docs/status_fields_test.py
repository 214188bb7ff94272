#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/weftctl.md names every field that `weftctl status` has of weftd and of weft-control."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Functions of other commands in these files.
ELSEWHERE = {'keys', 'change', 'thing', 'said_by', 'also_by', 'component', 'event_at_ns'}


def fields(file, pattern):
    return set(re.findall(pattern, (ROOT / file).read_text()))


class StatusFieldsTest(unittest.TestCase):
    def test_each_field_is_told(self):
        document = (ROOT / 'docs' / 'weftctl.md').read_text()
        document = document[document.index('## status'):document.index('## call')]
        told = set(re.findall(r'`([a-z0-9_]+)…?`', document))
        weftd = fields('dataplane/agent/server_status.cc', r'Add(?:Text|Number)\(&?item, (?:absl::StrCat\()?"([a-z_]+)"')
        control = fields('control/daemon/controller_status.cc', r'\.(?:Text|Number|Real)\("([a-z0-9_]+)"')
        self.assertGreater(len(weftd), 20)
        self.assertGreater(len(control), 20)
        sources = (ROOT / 'docs' / 'sources.md').read_text()
        for name in (weftd | control) - ELSEWHERE - told:
            if name.endswith('_'):  # One of several, as worker_0
                self.assertTrue(any(each.startswith(name) for each in told), name)
            else:
                self.assertTrue(name.startswith('refused_') or f'`{name}`' in sources, name)


if __name__ == '__main__':
    unittest.main()
