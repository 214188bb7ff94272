#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""weft-bench from its command line: the shape of its JSON, its picture, its exit codes."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

PROGRAM = sys.argv.pop(1)
WITH_DPDK = sys.argv.pop(1) == 'dpdk'
# Each row between nodes, and the limits that it is judged by.
REMOTE_ROWS = {
    'limit/af_xdp_raw': set(), 'limit/af_xdp_raw_generic': set(), 'limit/udp_spin': set(), 'limit/udp_blocking': set(), 'kernel/tcp': set(),
    'weft/engine_af_xdp': {'limit/af_xdp_raw', 'limit/af_xdp_raw_generic', 'limit/udp_spin'},
    'weft/engine_io_uring': {'limit/udp_spin'},
    'weft/guest_to_guest_inside': {'limit/af_xdp_raw'},
    'weft/guest_to_guest_shared': {'limit/af_xdp_raw'},
    'weft/core_in_memory': set(), 'weft/rate_af_xdp_coalesced': set(),
    'weft/bulk': {'kernel/tcp_bulk'},
    'kernel/tcp_bulk': set(), 'kernel/tcp_bulk_offload': set(),
    'weft/flood': {'limit/flood_foreign'},
}
DPDK_ROWS = {'limit/dpdk_raw': set(), 'weft/engine_dpdk': {'limit/dpdk_raw'}}
KEYS = {'name', 'bytes', 'p50_ns', 'p99_ns', 'p999_ns', 'samples', 'messages_per_s', 'cpu_ns_per_message', 'ratios'}


README = (pathlib.Path(__file__).resolve().parents[2] / 'bench' / 'README.md').read_text()


def untold(rows):
    """Keys of these rows that bench/README.md does not name."""
    return {key for row in rows for key in row if f'`{key}`' not in README}


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=100)


def children(pid):
    """Processes that `pid` and its children have started, each with its name."""
    found = {}
    for task in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            for child in task.read_text().split():
                found[int(child)] = pathlib.Path(f'/proc/{child}/comm').read_text().strip()
                found |= children(child)
        except OSError:
            pass  # It has ended.
    return found


def running(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def eventually(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class ProgramTest(unittest.TestCase):
    def test_local_writes_rows_of_the_agreed_shape_and_a_picture(self):
        with tempfile.TemporaryDirectory() as folder:
            report = pathlib.Path(folder) / 'report.json'
            picture = pathlib.Path(folder) / 'picture.svg'
            done = run('local', '--seconds', '1', '--filter', 'limit/(shm|spsc)|unix', '--json', report, '--svg', picture)
            self.assertEqual(done.returncode, 0, done.stderr)
            content = json.loads(report.read_text())
            self.assertIn('cpu', content['machine'])
            self.assertIsInstance(content['machine']['warnings'], list)
            rows = {row['name']: row for row in content['rows']}
            self.assertEqual(set(rows), {'limit/shm_spin', 'limit/spsc_batched', 'kernel/unix_socket'})
            for row in rows.values():
                self.assertLessEqual(KEYS, set(row))
            self.assertEqual(untold(rows.values()), set())
            self.assertGreater(rows['limit/shm_spin']['p50_ns'], 0)
            self.assertGreater(rows['limit/shm_spin']['p99_ns'], 0)
            self.assertGreater(rows['limit/spsc_batched']['messages_per_s'], 0)
            self.assertIsNone(rows['limit/spsc_batched']['p50_ns'])
            self.assertEqual(xml.etree.ElementTree.parse(picture).getroot().tag, '{http://www.w3.org/2000/svg}svg')
            self.assertIn('limit/shm_spin', done.stdout)

    def test_json_to_standard_output_is_nothing_but_json(self):
        done = run('local', '--seconds', '0.1', '--filter', 'shm_spin', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)['rows'][-1]['name'], 'limit/shm_spin')

    def test_weft_rows_call_through_a_node_of_their_own(self):
        done = run('local', '--seconds', '0.1', '--json', '-', '--filter',
                   'host_to_host@(64|1048576)|batched|sleeping|guest_to_guest@64|same_process|fresh|open_80|instance_reset')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row['name'], row['bytes']): row for row in json.loads(done.stdout)['rows']}
        for row in rows.values():
            self.assertGreater(row['messages_per_s'], 0, row['name'])
        self.assertIn('limit/two_memcpy', rows['weft/host_to_host', 1 << 20]['ratios'])
        self.assertIn('limit/wasm_call', rows['weft/guest_to_guest_same_process', 64]['ratios'])
        self.assertIn('resets_on_path', rows['weft/guest_to_guest_fresh', 64])
        self.assertGreater(rows['weft/guest_to_guest_open_80', 64]['peak_calls'], 0)
        self.assertGreater(rows['weft/guest_to_guest_open_80', 64]['p50_ns'], 0)
        self.assertIn('sleeps', rows['weft/host_to_host_sleeping', 64])
        self.assertEqual(untold(rows.values()), set())

    @unittest.skipUnless(os.geteuid() == 0, 'network namespaces need root')
    def test_remote_rows_cross_a_network_of_their_own(self):
        done = run('remote', '--seconds', '0.1', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        for row in rows.values():
            self.assertGreater(row['messages_per_s'], 0, row['name'])
        wanted = REMOTE_ROWS | (DPDK_ROWS if WITH_DPDK else {})
        self.assertEqual(set(wanted) - set(rows), set())
        for name, limits in wanted.items():
            self.assertLessEqual(limits, set(rows[name]['ratios']), name)
        self.assertIsNone(rows['weft/core_in_memory']['p50_ns'])
        flood = rows['weft/flood']
        self.assertGreater(flood['forged'], 0)
        self.assertEqual(flood['dropped'], flood['forged'])
        self.assertEqual(rows['limit/flood_foreign']['dropped'], 0)

    def ends_with_all_that_it_started(self, arguments, names, ending):
        with subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
            started = {}

            def all_run():
                started.update(children(bench.pid))
                alive = sorted(name for pid, name in started.items() if name in names and running(pid))
                return bench.poll() is not None or alive == sorted(names)
            self.assertTrue(eventually(all_run), started)
            self.assertIsNone(bench.poll(), started)
            bench.send_signal(ending)
            bench.wait()
        eventually(lambda: not any(map(running, started)), 20)
        left = {pid: name for pid, name in started.items() if running(pid)}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(left, {})

    def test_nothing_that_it_started_outlives_it(self):
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(ending):
                self.ends_with_all_that_it_started(['local', '--seconds', '60', '--filter', 'guest_to_guest@64'],
                                                   ['weftd', 'weft-host', 'weft-host', 'bench-invoker'], ending)

    @unittest.skipUnless(os.geteuid() == 0, 'network namespaces need root')
    def test_no_node_with_capabilities_outlives_it(self):
        # An abort is how a node that does not start ends the whole run.
        for ending in (signal.SIGINT, signal.SIGABRT):
            with self.subTest(ending):
                self.ends_with_all_that_it_started(
                    ['remote', '--seconds', '60', '--filter', 'guest_to_guest_shared'],
                    ['weftd', 'weftd', 'weft-control', 'weft-control', 'weft-host', 'weft-host', 'bench-invoker'], ending)

    @unittest.skipUnless(os.geteuid() == 0, 'a BPF program needs root')
    def test_steer_is_told_beside_the_least_program(self):
        done = run('steer', '--seconds', '0.1', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        self.assertEqual(set(rows), {'limit/steer_minimal', 'weft/steer', 'weft/steer_unknown_key'})
        for row in rows.values():
            self.assertGreater(row['p50_ns'], 0, row['name'])
        self.assertIn('limit/steer_minimal', rows['weft/steer']['ratios'])

    def test_sim_tells_slowdown_by_size_and_goodput(self):
        done = run('sim', '--quick', '--filter', 'w1_50|incast|loss', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        self.assertEqual(set(rows), {'sim/w1_50', 'sim/incast_100', 'sim/loss'})
        for row in rows.values():
            self.assertNotIn('error', row)
        self.assertEqual(untold(rows.values()), set())
        self.assertGreaterEqual(rows['sim/w1_50']['p99_slowdown_small'], 1)
        sizes = [group['bytes_max'] for group in rows['sim/w1_50']['seeds'][0]['slowdown_by_size']]
        self.assertGreater(len(sizes), 1)
        self.assertEqual(sizes, sorted(sizes))
        for name in ('sim/incast_100', 'sim/loss'):
            self.assertGreater(rows[name]['goodput_fraction'], 0)
            self.assertLessEqual(rows[name]['goodput_fraction'], 1)

    def test_idle_writes_cpu_and_memory_of_each_program(self):
        done = run('idle', '--seconds', '0.5', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        self.assertEqual(set(rows), {'idle/weftd', 'idle/weft-control', 'idle/weft-host'})
        for row in rows.values():
            self.assertLessEqual(KEYS | {'cpu_fraction', 'rss_bytes'}, set(row))
            self.assertGreater(row['rss_bytes'], 1_000_000)
            self.assertLess(row['cpu_fraction'], 1)
        self.assertEqual(untold(rows.values()), set())

    def test_control_follows_changes_from_a_real_etcd_and_files_to_the_agent(self):
        done = run('control', '--functions', '100', '--seconds', '1', '--quick', '--filter', 'etcd|memory|rest|wake|file|agent', '--json', '-')
        if 'no etcd on this machine' in done.stderr:
            self.skipTest('no etcd on this machine')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        self.assertEqual(set(rows), {'control/etcd_sync', 'control/memory', 'control/rest', 'control/etcd_change', 'limit/wake', 'control/file_change',
                                     'layer/agent_change', 'layer/agent_change_callers'})
        for row in rows.values():
            self.assertLessEqual(KEYS, set(row))
            self.assertIn('no claim', row['note'])
        self.assertEqual(untold(rows.values()), set())
        sync = rows['control/etcd_sync']
        self.assertEqual(sync['objects'], 1000 + 100)
        self.assertGreater(sync['seconds'], 0)
        self.assertGreater(sync['limit_seconds'], 0)
        self.assertGreater(sync['programmed_seconds'], sync['seconds'])
        for change in (rows['control/etcd_change'], rows['control/file_change']):
            self.assertEqual(change['samples'], change['events'])
            self.assertGreater(change['events'], 0)
            self.assertGreater(change['p50_ns'], 0)
            self.assertGreater(change['total_p50_ns'], change['p50_ns'])
        self.assertEqual(rows['layer/agent_change_callers']['samples'], 300)
        self.assertGreater(rows['control/memory']['rss_bytes'], 1_000_000)
        self.assertIn('cpu_fraction', rows['control/rest'])

    def test_control_follows_what_propeller_says_at_a_real_mosquitto(self):
        done = run('control', '--functions', '100', '--seconds', '1', '--quick', '--filter', 'mqtt', '--json', '-')
        if 'no mosquitto on this machine' in done.stderr:
            self.skipTest('no mosquitto on this machine')
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row['name']: row for row in json.loads(done.stdout)['rows']}
        self.assertEqual(set(rows), {'control/mqtt_change', 'limit/wake'})
        change = rows['control/mqtt_change']
        self.assertEqual(change['samples'], change['events'])
        self.assertGreater(change['p50_ns'], 0)
        self.assertGreater(change['total_p50_ns'], change['p50_ns'])

    def test_wrong_usage_exits_with_2_and_says_what(self):
        for arguments in ([], ['nosuch'], ['local', '--filter', '('], ['local', '--filter', 'nosuchrow'],
                          ['local', '--seconds', '-1']):
            done = run(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertTrue(done.stderr, arguments)
            self.assertLess(len(done.stderr), 200, arguments)
        for suite in ('local', 'sim', 'control'):
            self.assertIn('filter "nosuchrow": ', run(suite, '--filter', 'nosuchrow').stderr, suite)

    def test_file_that_cannot_be_written_is_named_before_anything_is_measured(self):
        for option in ('--json', '--svg'):
            done = run('local', '--seconds', '0.1', '--filter', 'jitter', option, '/nonexistent/report')
            self.assertEqual(done.returncode, 1)
            self.assertIn('write /nonexistent/report: No such file', done.stderr)
            self.assertEqual(done.stdout, '')
        for suite in ('sim', 'idle', 'control'):
            done = run(suite, '--json', '/nonexistent/report')
            self.assertEqual((done.returncode, done.stdout), (1, ''))


if __name__ == '__main__':
    unittest.main()
