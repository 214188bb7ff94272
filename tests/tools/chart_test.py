#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Helm chart, rendered by Helm's own engine, at its default values is the plain manifests, and each value that can be given counts.

usage: chart_test.py PACKAGING_DIR HELM_RENDER
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PACKAGING, RENDER = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
CHART = PACKAGING / 'chart'

# Another one for each value of values.yaml, and one that the schema must refuse, or None.
OTHERS = {
    'image': ('registry.example/weft:1', 7),
    'imagePullPolicy': ('Always', 'Sometimes'),
    'imagePullSecrets': ([{'name': 'secret'}], 'secret'),
    'nodeNameField': ('metadata.name', ''),
    'paths.settings': ('/srv/weft', 'etc/weft'),
    'paths.state': ('/srv/state', ''),
    'paths.run': ('/srv/run', 7),
    'identityPath': ('/srv/identity', 'identity'),
    'sources': ({'etcd': {'endpoints': ['https://10.0.0.1:2379']}}, {'zookeeper': {}}),
    'metricsPort': (9999, 0),
    'weftd.capabilities': (['NET_RAW'], ['SYS_ADMIN']),
    'weftd.resources': ({'limits': {'memory': '128Mi'}}, []),
    'control.arguments': (['--log-level', 'debug'], '--log-level'),
    'control.capabilities': (['BPF'], ['ALL']),
    'control.resources': ({'limits': {'memory': '128Mi'}}, []),
    'priorityClassName': ('', 7),
    'nodeSelector': ({'weft': 'yes'}, []),
    'tolerations': ([{'key': 'weft', 'operator': 'Exists'}], {}),
}


def run(*arguments):
    return subprocess.run([RENDER, *arguments], capture_output=True, text=True, check=False)


def objects_of(ran):
    if ran.returncode != 0:
        raise AssertionError(ran.stderr)
    return sorted(json.loads(ran.stdout), key=lambda each: (each['kind'], each['metadata']['name']))


def render(values, release='weft', namespace='weft'):
    with tempfile.NamedTemporaryFile('w', suffix='.json') as file:
        json.dump(values, file)
        file.flush()
        return run(CHART, release, namespace, file.name)


def value_at(name, value):
    for part in reversed(name.split('.')):
        value = {part: value}
    return value


def names_of(values, prefix=''):
    """Of each value that can be given: `sources` and what is empty count as one."""
    for key, value in values.items():
        if key in ('paths', 'weftd', 'control'):
            yield from names_of(value, f'{key}.')
        else:
            yield prefix + key


class ChartTest(unittest.TestCase):
    maxDiff = None

    def test_default_values_make_the_plain_manifests(self):
        plain = objects_of(run('--plain', *(PACKAGING / 'kubernetes' / name for name in ('node.yaml', 'functionpolicy.yaml'))))
        # Helm makes the namespace by itself.
        plain = [each for each in plain if each['kind'] != 'Namespace']
        made = objects_of(render({}))
        for each in made:
            if each['kind'] == 'DaemonSet':
                del each['spec']['template']['metadata']['annotations']
        self.assertEqual(made, plain)

    def test_other_settings_make_new_pods_and_the_same_ones_none(self):
        def template(values):
            return [each['spec']['template'] for each in objects_of(render(values)) if each['kind'] == 'DaemonSet']
        self.assertEqual(template({}), template({}))
        self.assertNotEqual(template({'sources': OTHERS['sources'][0]}), template({}))

    def test_each_value_counts_and_wrong_ones_are_refused(self):
        values = json.loads(run('--plain', CHART / 'values.yaml').stdout)[0]
        self.assertEqual(sorted(names_of(values)), sorted(OTHERS))
        default = objects_of(render({}))
        for name, (other, wrong) in OTHERS.items():
            with self.subTest(name):
                self.assertNotEqual(objects_of(render(value_at(name, other))), default)
                refused = render(value_at(name, wrong))
                self.assertNotEqual(refused.returncode, 0)
                self.assertIn('values don\'t meet the specifications of the schema', refused.stderr)
        self.assertNotEqual(render({'imgae': 'weft'}).returncode, 0)

    def test_another_release_in_another_namespace_is_nowhere_called_weft(self):
        text = json.dumps([each for each in objects_of(render({}, 'mesh', 'system')) if each['kind'] != 'CustomResourceDefinition'])
        self.assertNotIn('"name": "weft"', text)
        self.assertNotIn('"namespace": "weft"', text)
        self.assertIn('"namespace": "system"', text)

    def test_the_least_capabilities(self):
        for each in objects_of(render({})):
            if each['kind'] != 'DaemonSet':
                continue
            for container in each['spec']['template']['spec']['containers']:
                self.assertEqual(container['securityContext'], {'allowPrivilegeEscalation': False,
                                                                'readOnlyRootFilesystem': True,
                                                                'capabilities': {'drop': ['ALL']}})


if not RENDER.exists():
    print('no helm-render: tools/setup test builds it, with Go')
else:
    unittest.main(argv=sys.argv[:1])
