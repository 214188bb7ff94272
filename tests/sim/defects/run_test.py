#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What of a simulator's end counts as a defect that was found: a seed, and nothing else."""
import pathlib
import tempfile
import unittest

import run


def search(script):
    """As of a simulator that is this shell script."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "simulator"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return run.search(program)


class Search(unittest.TestCase):
    def test_a_seed_that_broke_an_invariant_is_found_and_told(self):
        self.assertEqual(search("echo 'seed 17: message 3 was delivered twice'; exit 1"),
                         "seed 17: message 3 was delivered twice")

    def test_seeds_that_are_all_good_are_no_find(self):
        self.assertIsNone(search("echo '1000 seeds, 0 broken; 5 messages'"))

    def test_any_other_end_is_no_find(self):
        for end in ["kill -ABRT $$", "echo 'seed 17: before the crash'; kill -SEGV $$", "exit 1", "echo usage >&2; exit 2",
                    "echo 'seed 17: with a wrong exit'; exit 3"]:
            with self.subTest(end), self.assertRaises(SystemExit) as ended:
                search(end)
            self.assertIn("told no seed", ended.exception.code)

    def test_a_missing_simulator_is_no_find(self):
        with self.assertRaises(FileNotFoundError):
            run.search("/nowhere/simulator")


if __name__ == "__main__":
    unittest.main()
