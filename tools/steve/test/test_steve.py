#!/usr/bin/env python3
"""Records small real programs with steve and replays what was recorded.

Usage: test_steve.py STEVE SUBJECT LINGER CORRUPT
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

STEVE = SUBJECT = LINGER = CORRUPT = None
# Sanitizers keep freed memory and need much more of it: what is resident says nothing then.
SANITIZED = os.environ.get("STEVE_SANITIZER", "none") != "none"


# Jeff's own checks and scrambling, which other tests are about, would take hours on a replay.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JEFF_")}


def run(*arguments, environment=None):
    """A finished steve, its output as text."""
    return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          env={**ENVIRONMENT, **(environment or {})})


class SteveTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"

    def record(self, *command, status=0, options=(), environment=None):
        done = run("record", "-o", self.trace, *options, "--", *command, environment=environment)
        self.assertEqual(done.returncode, status, done.stderr)
        return done

    def info(self, trace=None):
        """What `steve info` prints, as a dictionary of its lines."""
        done = run("info", trace or self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {line[:24].strip(): line[24:] for line in done.stdout.splitlines()}

    def events(self, trace=None):
        """Events as lists of operation and numbers, without time and thread."""
        done = run("dump", trace or self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = []
        for line in done.stdout.splitlines():
            _, _, _, operation, *numbers = line.split()
            result.append([operation, *map(int, numbers)])
        return result

    def sizes(self, trace=None):
        return [event[2] for event in self.events(trace) if len(event) > 2]


class Record(SteveTest):
    def test_every_function_is_recorded_with_its_size(self):
        self.record(SUBJECT, "all")
        lives = {}
        found = []
        for operation, block, *numbers in self.events():
            if operation == "free":
                found.append(lives.pop(block) + ["free"])
            elif operation == "realloc":
                lives[block] += [operation, *numbers]
            else:
                lives[block] = [operation, *numbers]
        for life in [["malloc", 100001, "free"], ["calloc", 300006, "free"],
                     ["malloc", 100003, "realloc", 200003, "realloc", 50003, "free"],
                     ["malloc", 200008, "free"], ["aligned", 100096, 256, "free"],
                     ["aligned", 100005, 4096, "free"], ["aligned", 100006, 64, "free"],
                     ["aligned", 100007, 4096, "free"], ["malloc", 13, "free"],
                     ["malloc", 100008, "free"], ["malloc", 100009, "free"],
                     ["malloc", 100010, "free"]]:
            self.assertIn(life, found)
        self.assertIn(["malloc", 11111], lives.values(), "allocated by a constructor")

    def test_threads_that_free_each_others_blocks_keep_their_order(self):
        # One heap without caches per thread, and a free that comes back late: another thread is given
        # the block meanwhile.
        shared = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
                  "LD_PRELOAD": LINGER}
        for environment in [{}] if SANITIZED else [{}, shared]:
            with self.subTest(environment):
                self.record(SUBJECT, "threads", environment=environment)
                info = self.info()
                self.assertEqual(info["frees of unseen blocks"], "0")
                self.assertEqual(info["blocks that vanished"], "0")
                self.assertEqual(info["operations lost"], "0")
                self.assertEqual(info["threads"], "5")
                self.assertGreaterEqual(int(info["allocations"]), 4 * 30000)
                self.assertGreaterEqual(int(info["frees"]), 4 * 30000)

    def test_nothing_is_lost_however_the_program_ends(self):
        for how, status, said in [("_exit", 7, "status 7"), ("abort", 134, "signal 6"),
                                  ("kill", 137, "signal 9"), ("", 0, "status 0")]:
            with self.subTest(how):
                self.record(SUBJECT, how, status=status)
                self.assertIn(22222, self.sizes())
                self.assertEqual(self.info()["program ended with"], said)

    def test_a_program_that_becomes_another_stays_in_one_trace(self):
        self.record(SUBJECT, "exec")
        events = self.events()
        place = events.index(["exec"])
        sizes = [event[2] for event in events[place:] if len(event) > 2]
        self.assertIn(22222, [event[2] for event in events[:place] if len(event) > 2])
        self.assertIn(44444, sizes)
        self.assertIn(["free", next(e[1] for e in events if e[1:] and e[-1] == 22222)],
                      events[:place], "blocks of the program before end with it")

    def test_a_forked_child_is_left_out(self):
        self.record(SUBJECT, "fork")
        sizes = self.sizes()
        self.assertIn(30001, sizes)
        self.assertNotIn(30002, sizes)
        self.assertIn(30003, sizes)
        self.assertEqual(self.info()["frees of unseen blocks"], "0")
        self.assertEqual(os.listdir(self.folder), ["trace"])

    def test_children_are_recorded_in_files_of_their_own_when_asked_for(self):
        self.record(SUBJECT, "fork", options=["--children"])
        children = [name for name in os.listdir(self.folder) if name != "trace"]
        self.assertEqual(len(children), 1)
        self.assertRegex(children[0], r"^trace\.[0-9]+$")
        self.assertEqual(self.sizes(self.folder / children[0]), [30002])
        self.assertEqual(self.info(self.folder / children[0])["frees of unseen blocks"], "1")

    def test_a_child_may_resize_what_its_parent_allocated(self):
        self.record(SUBJECT, "inherit", options=["--children"])
        child, = [name for name in os.listdir(self.folder) if name != "trace"]
        self.assertEqual(self.sizes(self.folder / child), [60001, 20001])
        self.assertEqual(self.info(self.folder / child)["frees of unseen blocks"], "2")
        self.assertNotIn(30002, self.sizes())

    def sites(self, trace=None):
        """The stacks that `steve info --sites` prints: figures and names of functions."""
        done = run("info", "--sites=1000", trace or self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        table = done.stdout.split("allocations\n")[-1].splitlines()
        found = []
        for line in table:
            if line.startswith(" " * 10):
                # Without what the compiler calls its variants of a function.
                found[-1][1].append(line.split()[0].split(".")[0])
            else:
                found.append((line.split(), []))
        return found

    def test_call_stacks_tell_who_owns_the_memory(self):
        self.record(SUBJECT, "sites", options=["--stacks=4"])
        if shutil.which("addr2line") is None:
            self.skipTest("addr2line is not installed")
        sites = self.sites()
        figures, functions = next(each for each in sites if each[1][0] == "allocate_much")
        self.assertEqual(functions[:3], ["allocate_much", "call_both", "main"])
        # A block is of the call that reallocated it last.
        self.assertEqual(figures[2:5], ["244.14", "KiB", "50"])
        little = [each for each in sites if each[1][0] == "allocate_little"]
        self.assertEqual(len(little), 2, "two calls are two stacks")
        for figures, functions in little:
            self.assertEqual(functions[1], "call_both")
            self.assertEqual(figures[2:5], ["4.88", "KiB", "50"])
        shares = [float(figures[0]) for figures, _ in sites]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertAlmostEqual(sum(shares), 100, delta=1)

    def test_call_stacks_change_nothing_else(self):
        self.record(SUBJECT, "all")
        plain = self.events()
        self.record(SUBJECT, "all", options=["--stacks=64"])
        done = run("dump", self.trace)
        lines = [line.split() for line in done.stdout.splitlines()]
        self.assertEqual([[line[3], *map(int, line[4:])] for line in lines
                          if line[3] not in ("stack", "module")], plain)
        allocations = [line for line in lines if line[3] in ("malloc", "calloc", "aligned", "realloc")]
        stacks = [line for line in lines if line[3] == "stack"]
        self.assertEqual(len(stacks), len(allocations))
        modules = [line[-1] for line in lines if line[3] == "module"]
        self.assertIn(os.path.realpath(SUBJECT), map(os.path.realpath, modules))
        self.assertEqual(len(set(modules)), len(modules), "each file of code is told of once")

    def test_call_stacks_of_threads_children_and_other_programs(self):
        self.record(SUBJECT, "threads", options=["--stacks=3"])
        info = self.info()
        self.assertEqual(info["frees of unseen blocks"], "0")
        self.assertEqual(info["operations lost"], "0")
        self.assertEqual(info["threads"], "5")
        self.record(SUBJECT, "exec", options=["--stacks=3"])
        self.assertTrue(any("main" in functions for _, functions in self.sites()))
        self.record(SUBJECT, "fork", options=["--children", "--stacks=3"])
        child = next(name for name in os.listdir(self.folder) if name.startswith("trace."))
        self.assertEqual([functions[0] for _, functions in self.sites(self.folder / child)], ["use_fork"])

    def test_without_call_stacks_there_are_no_sites(self):
        self.record(SUBJECT, "sites")
        done = run("info", "--sites", self.trace)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--stacks", done.stderr)

    def test_without_compression_the_same_is_recorded(self):
        self.record(SUBJECT, "all")
        compressed = self.events()
        self.record(SUBJECT, "all", options=["--no-compress"])
        self.assertEqual(self.events(), compressed)
        self.assertIn("not compressed", self.info()["format"])

    def test_a_command_that_is_not_there_costs_no_trace(self):
        self.record(SUBJECT, "all")
        before = self.trace.read_bytes()
        done = self.record("/nonexistent/program", status=127)
        self.assertIn("/nonexistent/program", done.stderr)
        self.record("/", status=126)
        self.assertEqual(self.trace.read_bytes(), before)

    def test_a_trace_that_cannot_be_written_is_said(self):
        done = run("record", "-o", "/nonexistent/trace", "--", SUBJECT)
        self.assertEqual(done.returncode, 125)
        self.assertIn("/nonexistent/trace", done.stderr)
        done = run("record", "-o", "/dev/full", "--", SUBJECT, "threads")
        self.assertEqual(done.returncode, 125)
        self.assertIn("No space left", done.stderr)

    def test_a_wrong_command_line_is_2(self):
        for arguments in [[], ["record"], ["record", "-o", "x"], ["record", "--nonsense"], ["nonsense"],
                          ["info"], ["dump", "--count=x", "y"], ["replay"],
                          ["replay", "--idle-every=0", "x"], ["replay", "-a", "nonsense", "x"]]:
            with self.subTest(arguments):
                done = run(*arguments)
                self.assertEqual(done.returncode, 2)
                self.assertNotEqual(done.stderr, "")

    def test_every_command_has_help(self):
        for command in ["record", "replay", "info", "dump"]:
            done = run(command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn(f"Usage: steve {command}", done.stdout)
            self.assertEqual(run("help", command).stdout, done.stdout)
            self.assertIn(f"steve {command}", run("--help").stdout)


class Replay(SteveTest):
    def replay(self, *options, status=0):
        results = self.folder / "results.json"
        done = run("replay", "--repeat=1", f"--json={results}", *options, self.trace)
        self.assertEqual(done.returncode, status, done.stderr)
        return done, json.loads(results.read_text())

    def test_both_allocators_do_the_same_program(self):
        self.record(SUBJECT, "threads")
        csv = self.folder / "samples.csv"
        done, results = self.replay(f"--csv={csv}", "--idle-every=100", "--budget-us=50",
                                    "--samples=50")
        events = int(self.info()["events"])
        self.assertEqual([each["name"] for each in results["allocators"]], ["jeff", "malloc"])
        self.assertEqual(results["command"], [SUBJECT, "threads"])
        for each in results["allocators"]:
            self.assertFalse(each["failed"])
            self.assertEqual(each["operations"], events)
            self.assertGreater(each["verified_bytes"], 0)
            self.assertGreater(each["resident_peak_bytes"], 0)
            self.assertGreater(each["operations_per_second"], 0)
            self.assertGreaterEqual(len(each["samples"]), 50)
            self.assertEqual(each["samples"][-1]["event"], events)
        jeff, malloc = results["allocators"]
        self.assertEqual(jeff["live_peak_bytes"], malloc["live_peak_bytes"])
        self.assertEqual(jeff["pauses"], events // 100)
        self.assertEqual(malloc["pauses"], 0)
        self.assertLessEqual(jeff["pause_wall"]["p50_us"], jeff["pause_wall"]["p99_us"])
        self.assertLessEqual(jeff["pause_wall"]["p99_us"], jeff["pause_wall"]["max_us"])
        self.assertRegex(done.stdout, r"\n +jeff +malloc\n")
        lines = csv.read_text().splitlines()
        self.assertEqual(len(lines), 1 + sum(len(each["samples"]) for each in results["allocators"]))

    @unittest.skipIf(SANITIZED, "built with a sanitizer")
    def test_a_large_block_is_resident_and_given_back(self):
        self.record(sys.executable, "-c", "x = b'x' * (64 << 20); del x")
        for each in self.replay("--budget-us=0")[1]["allocators"]:
            self.assertGreaterEqual(each["resident_peak_bytes"], 64 << 20)
            self.assertLess(each["resident_peak_bytes"], 80 << 20)
            self.assertLess(each["resident_after_full_compaction_bytes"], 16 << 20)
            self.assertEqual(each["pauses"], 0)

    def test_a_cut_off_trace_is_replayed_only_when_asked_for(self):
        self.record(SUBJECT, "threads")
        whole = self.trace.read_bytes()
        self.trace.write_bytes(whole[:len(whole) * 2 // 3])
        done = run("replay", self.trace)
        self.assertEqual(done.returncode, 1)
        self.assertIn("offset", done.stderr)
        self.assertIn("--partial", done.stderr)
        self.assertEqual(run("info", self.trace).returncode, 1)
        _, results = self.replay("--partial", "--allocators=malloc")
        self.assertGreater(results["allocators"][0]["operations"], 0)

    def test_a_damaged_trace_is_an_error_that_names_the_place(self):
        self.record(SUBJECT, "threads")
        damaged = bytearray(self.trace.read_bytes())
        damaged[len(damaged) // 2] ^= 0x10
        self.trace.write_bytes(damaged)
        for command in ["info", "dump", "replay"]:
            done = run(command, self.trace)
            self.assertEqual(done.returncode, 1)
            self.assertIn("offset", done.stderr)

    @unittest.skipIf(SANITIZED, "built with a sanitizer")
    def test_a_failing_allocator_shows_and_spoils_no_other(self):
        self.record(SUBJECT, "all")
        with_limit = ["sh", "-c", 'ulimit -v 400000; exec "$0" "$@"', STEVE, "replay", "--repeat=1",
                      "--allocators=malloc,jeff", self.trace]
        self.record(sys.executable, "-c", "x = bytes(1 << 28)")
        done = subprocess.run(with_limit, capture_output=True, text=True, timeout=120,
                              env=ENVIRONMENT)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("failed", done.stdout)

    @unittest.skipIf(SANITIZED, "built with a sanitizer")
    def test_an_allocator_that_damages_contents_is_found_out(self):
        self.record(SUBJECT, "all")
        self.assertEqual(run("replay", "--repeat=1", "-a", "malloc", self.trace).returncode, 0)
        done = run("replay", "--repeat=1", "-a", "malloc", self.trace,
                   environment={"LD_PRELOAD": CORRUPT})
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"event \d+, block \d+ of 200003 bytes: its contents changed")
        self.assertIn("failed", done.stdout)

    def test_the_picture_is_drawn_as_png_and_svg(self):
        python = os.environ.get("STEVE_PYTHON", "/usr/bin/python3")
        if subprocess.run([python, "-c", "import matplotlib"], capture_output=True).returncode != 0:
            self.skipTest("no matplotlib")
        self.record(SUBJECT, "threads")
        done = run("replay", "--repeat=1", f"--plot={self.folder / 'picture.png'}", self.trace,
                   environment={"STEVE_PYTHON": python})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "picture.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        text = "".join(xml.etree.ElementTree.parse(self.folder / "picture.svg").getroot().itertext())
        for label in ["jeff: resident", "malloc: resident", "live: bytes the program asked for"]:
            self.assertIn(label, text)

    @unittest.skipUnless(shutil.which("sqlite3"), "no sqlite3")
    def test_a_real_program(self):
        self.record("sqlite3", ":memory:",
                    "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
                    "WHERE i<5000) INSERT INTO t SELECT hex(randomblob(i%100)) FROM n; "
                    "DELETE FROM t WHERE rowid%5<>0; VACUUM; SELECT count(*) FROM t;")
        self.assertEqual(self.info()["frees of unseen blocks"], "0")
        for each in self.replay("--idle-every=1000")[1]["allocators"]:
            self.assertFalse(each["failed"])


if __name__ == "__main__":
    STEVE, SUBJECT, LINGER, CORRUPT = map(os.path.abspath, sys.argv[1:5])
    unittest.main(argv=sys.argv[:1] + sys.argv[5:])
