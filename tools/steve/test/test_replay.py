#!/usr/bin/env python3
"""Replays small traces that are written down here, on every allocator there is.

Usage: test_replay.py STEVE GENERATE WITNESS
"""

import json
import os
import pathlib
import platform
import struct
import subprocess
import sys
import tempfile
import unittest

STEVE = GENERATE = WITNESS = None
SANITIZED = os.environ.get("STEVE_SANITIZER", "none") != "none"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JEFF_")}

# Handles, operations, addresses, sizes: a table that grows, 2000 rows, most of which go again, locks
# on some of the others. Its totals are known by counting.
ROWS = 2000
OPS = "".join(
    [f"{row} N {row * 4096} {100 + row % 400}\n" for row in range(ROWS)] +
    [f"{row} L 0 0\n" for row in range(0, ROWS, 20)] +
    [f"{row} F 0 0\n" for row in range(ROWS) if row % 4 != 0])
LEFT = [100 + row % 400 for row in range(0, ROWS, 4)]
LIVE_PEAK = sum(100 + row % 400 for row in range(ROWS))

# What is the same on every machine, of the table for OPS.
GOLDEN = """\
live bytes (asked for by the program)
  peak                                              584.96 KiB
  average                                           321.54 KiB
  at the end                                        145.51 KiB
resident bytes
  peak                                              588.00 KiB
  average                                           323.79 KiB
  average over live bytes                               +0.7 %
  average, shared pages by share (PSS)              323.79 KiB
  at the end, before full compaction                148.00 KiB
  at the end, after full compaction                 148.00 KiB
largest block to be had within the peak
  at the end, before full compaction                436.00 KiB
  at the end, after full compaction                 436.00 KiB
"""


class ReplayTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"
        self.import_ops(OPS)

    def run_steve(self, *arguments, environment=None):
        return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True,
                              timeout=240, env={**ENVIRONMENT, **(environment or {})})

    def import_ops(self, text):
        source = self.folder / "ops"
        source.write_text(text)
        done = self.run_steve("import", "--from=ops", "-o", self.trace, source)
        self.assertEqual(done.returncode, 0, done.stderr)

    def replay(self, *options, status=0, environment=None):
        results = self.folder / "results.json"
        results.unlink(missing_ok=True)
        done = self.run_steve("replay", "--repeat=1", f"--json={results}", *options, self.trace,
                              environment=environment)
        self.assertEqual(done.returncode, status, done.stderr)
        self.table = done.stdout
        self.errors = done.stderr
        return {each["name"]: each for each in json.loads(results.read_text())["allocators"]}

    def test_the_table_of_a_fixed_trace(self):
        self.replay("-a", "ideal", "--samples=100", "--idle-every=100")
        start = self.table.index("live bytes")
        self.assertEqual(self.table[start:self.table.index("pauses at")], GOLDEN)

    @unittest.skipIf(SANITIZED, "a sanitizer's malloc cannot be replaced")
    def test_every_allocator_that_is_there_runs_the_trace(self):
        results = self.replay("-a", "all", "--idle-every=200")
        self.assertLessEqual({"jeff", "jeff-never", "jeff-oom", "jeff-background", "jeff-fixed",
                              "malloc", "ideal"}, set(results))
        operations = ROWS + ROWS * 3 // 4
        for name, each in results.items():
            self.assertFalse(each["failed"], name)
            self.assertEqual(each["operations"], operations)
            self.assertEqual(each["live_peak_bytes"], LIVE_PEAK)
            self.assertEqual(each["live_end_bytes"], sum(LEFT))
            self.assertEqual(each["latency"]["all"]["count"], operations)
            self.assertEqual(each["latency"]["allocate"]["count"], ROWS)
            self.assertEqual(each["latency"]["free"]["count"], operations - ROWS)
            latency = each["latency"]["all"]
            self.assertLessEqual(latency["p50_ns"], latency["p99_ns"])
            self.assertLessEqual(latency["p99_ns"], latency["p999_ns"])
            self.assertLessEqual(latency["p999_ns"], latency["max_ns"])
            self.assertEqual(each["pauses"] > 0, name == "jeff")

    def test_the_share_of_locked_blocks_is_told_at_each_compaction(self):
        results = self.replay("-a", "jeff,malloc", "--idle-every=100")
        compactions = results["jeff"]["compactions"]
        self.assertEqual(len(compactions), (ROWS + ROWS * 3 // 4) // 100)
        for each in compactions:
            rows = each["event"]
            expected = ROWS // 20 if rows > ROWS else 0
            if rows != ROWS:
                self.assertEqual(each["locked_blocks"], expected)
            self.assertLessEqual(each["locked_bytes"], each["bytes"])
        self.assertEqual(results["malloc"]["compactions"], [])

    def test_repeats_have_a_mean_and_an_interval(self):
        results = self.replay("-a", "malloc", "--repeat=4")["malloc"]
        speeds = results["repeats"]
        self.assertEqual(len(speeds), 4)
        mean = sum(speeds) / 4
        deviation = (sum((speed - mean) ** 2 for speed in speeds) / 3) ** 0.5
        found = results["operations_per_second_mean"]
        self.assertAlmostEqual(found["mean"], mean, delta=1)
        # Student's t for three degrees of freedom.
        self.assertAlmostEqual(found["half_width_95"], 3.182 * deviation / 2, delta=0.001 * mean)

    def test_rounds_keep_a_share_of_what_is_left(self):
        several = self.replay("-a", "jeff,malloc", "--rounds=5", "--free-share=50")
        for each in several.values():
            self.assertEqual(each["operations"], 5 * (ROWS + ROWS * 3 // 4))
            rounds = {sample["round"] for sample in each["samples"]}
            self.assertEqual(rounds, set(range(5)))
            # Of every round a half, a quarter, ... is left at the end of the last.
            self.assertAlmostEqual(each["live_end_blocks"] / len(LEFT), 1.9375, delta=0.25)
        self.assertEqual(several["jeff"]["live_end_bytes"], several["malloc"]["live_end_bytes"])
        again = self.replay("-a", "malloc", "--rounds=5", "--free-share=50")
        self.assertEqual(again["malloc"]["live_end_bytes"], several["malloc"]["live_end_bytes"])
        other = self.replay("-a", "malloc", "--rounds=5", "--free-share=50", "--seed=2")
        self.assertNotEqual(other["malloc"]["live_end_bytes"], several["malloc"]["live_end_bytes"])
        nothing = self.replay("-a", "malloc", "--rounds=3", "--free-share=100")
        self.assertEqual(nothing["malloc"]["live_end_bytes"], sum(LEFT))

    @unittest.skipIf(SANITIZED, "a sanitizer has memory of its own")
    def test_no_block_of_any_round_lies_in_memory_that_is_not_counted(self):
        results = self.replay("-a", "jeff-never,jeff-oom,jeff-fixed,malloc", "--rounds=6", "--stop-at-peak",
                              "--free-share=30")
        for name, each in results.items():
            # The heap's size was foreseen, though it is beyond the peak of a single round.
            self.assertFalse(each["failed"], name)
            self.assertGreater(each["live_peak_bytes"], 2 * LIVE_PEAK)
            self.assertEqual(each["limit_raises"], 0, name)
            for sample in each["samples"]:
                self.assertGreaterEqual(sample["resident_bytes"], sample["live_bytes"] * 0.99, name)

    @unittest.skipIf(SANITIZED, "a sanitizer has memory of its own")
    def test_the_programs_own_pages_are_not_counted(self):
        release = tuple(int(part) for part in platform.release().split(".")[:2])
        if release < (5, 14):
            self.skipTest("the kernel cannot make pages of files present")
        for name, each in self.replay("-a", "jeff,malloc").items():
            for sample in each["samples"]:
                # Only files are shared with other processes.
                self.assertAlmostEqual(sample["resident_bytes"], sample["share_bytes"], delta=32 << 10, msg=name)

    def test_a_round_may_end_at_the_peak(self):
        results = self.replay("-a", "jeff", "--rounds=2", "--stop-at-peak", "--free-share=0")
        self.assertEqual(results["jeff"]["operations"], 2 * ROWS)
        self.assertEqual(results["jeff"]["live_end_bytes"], 2 * LIVE_PEAK)

    @unittest.skipIf(SANITIZED, "a sanitizer needs memory of its own")
    def test_the_smallest_heap_is_found(self):
        results = self.replay("-a", "jeff-fixed,jeff,malloc,ideal", "--smallest")
        for name in ["jeff-fixed", "jeff", "malloc"]:
            smallest = results[name]["smallest_heap_bytes"]
            self.assertGreater(smallest, LIVE_PEAK * 0.9, name)
            self.assertLess(smallest, 4 * LIVE_PEAK, name)
        self.assertNotIn("smallest_heap_bytes", results["ideal"])
        fixed = results["jeff-fixed"]["smallest_heap_bytes"]
        self.assertFalse(self.replay("-a", "jeff-fixed", f"--heap={fixed}")["jeff-fixed"]["failed"])
        less = self.replay("-a", "jeff-fixed,ideal", f"--heap={fixed // 2}", status=1)
        self.assertTrue(less["jeff-fixed"]["failed"])
        self.assertFalse(less["ideal"]["failed"])

    @unittest.skipIf(SANITIZED, "a sanitizer's malloc cannot be replaced")
    def test_an_allocator_that_is_too_slow_is_shown_as_such(self):
        self.import_ops("0 N 0 100\n0 F 0 0\n")
        self.run_steve("import", "--from=mtrace", "-o", self.trace, self.write_mtrace())
        results = self.replay("-a", f"malloc,{WITNESS}", "--timeout=1", status=1,
                              environment={"WITNESS_STALL": "200003"})
        self.assertFalse(results["malloc"]["failed"])
        witness = results["steve-test-witness"]
        self.assertTrue(witness["failed"])
        self.assertEqual(witness["failure"], "timed out")
        self.assertIn("timed out", self.table)

    def write_mtrace(self):
        source = self.folder / "mtrace"
        source.write_text("@ x + 0x1000 0x186a1\n@ x + 0x200000 0x30d43\n@ x < 0x1000\n"
                          "@ x > 0x400000 0x30d43\n@ x - 0x200000\n@ x + 0x200000 0x11170\n"
                          "@ x - 0x400000\n")
        return source

    @unittest.skipIf(SANITIZED, "a sanitizer's malloc cannot be replaced")
    def test_the_allocator_is_asked_for_just_what_the_trace_says(self):
        self.run_steve("import", "--from=mtrace", "-o", self.trace, self.write_mtrace())
        log = self.folder / "log"
        results = self.replay("-a", WITNESS, environment={"WITNESS_LOG": str(log)})
        self.assertFalse(results["steve-test-witness"]["failed"])
        # A model: the blocks by number, as the trace has them.
        model = ["malloc 0 100001", "malloc 1 200003", "realloc 0 200003", "free 1",
                 "malloc 1 70000", "free 0", "free 1"]
        numbers = {}
        found = []
        for line in log.read_text().splitlines():
            operation, block, result, size = line.split()
            if operation == "free" and block in numbers:
                found.append(f"free {numbers.pop(block)}")
            elif operation == "realloc" and block in numbers:
                numbers[result] = numbers.pop(block)
                found.append(f"realloc {numbers[result]} {size}")
            elif operation == "malloc" and int(size) in (100001, 200003, 70000):
                numbers[result] = min({0, 1} - set(numbers.values()))
                found.append(f"malloc {numbers[result]} {size}")
        # Once for each pass: memory, speed, latency. What is left is freed at the end of each.
        self.assertEqual(found, 3 * model)

    def test_a_library_that_is_not_there_or_no_allocator_fails_alone(self):
        results = self.replay("-a", "/nonexistent/libx.so,ideal", status=1)
        self.assertTrue(results["libx"]["failed"])
        self.assertEqual(results["libx"]["failure"], "not there")
        self.assertFalse(results["ideal"]["failed"])

    def test_pictures_of_the_heap_hold_every_live_byte(self):
        self.replay("-a", "jeff,malloc", "--rounds=2", f"--maps={self.folder / 'map'}",
                    "--map-count=10")
        for name in ["jeff", "malloc"]:
            content = (self.folder / f"map.{name}").read_bytes()
            self.assertEqual(content[:8], b"STEVEMAP")
            at, pictures = 8, 0
            while at < len(content):
                operations, _, live, resident, pages = struct.unpack_from("<5Q", content, at)
                at += 40
                cells = [struct.unpack_from("<QII", content, at + 16 * i) for i in range(pages)]
                at += 16 * pages
                self.assertEqual(sum(cell[1] for cell in cells), live)
                self.assertLessEqual(max(cell[1] for cell in cells), 4096)
                self.assertEqual(len({cell[0] for cell in cells}), pages)
                self.assertTrue(all(cell[2] <= cell[1] for cell in cells))
                pictures += 1
            self.assertGreaterEqual(pictures, 10)

    def test_accesses_are_passed_over(self):
        subprocess.run([GENERATE, "20000", self.trace], check=True)
        info = self.run_steve("info", self.trace).stdout
        events, runs = (int(next(line for line in info.splitlines() if line.startswith(key)).split()[-1])
                        for key in ["events", "  runs of accesses"])
        self.assertGreater(runs, 500)
        results = self.replay("-a", "jeff,malloc")
        for each in results.values():
            self.assertEqual(each["operations"], events - runs)


if __name__ == "__main__":
    STEVE, GENERATE, WITNESS = map(os.path.abspath, sys.argv[1:4])
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
