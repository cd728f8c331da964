#!/usr/bin/env python3
"""Imports small files of other tools, and reads long traces.

Usage: test_import.py STEVE GENERATE DATA
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

STEVE = GENERATE = DATA = None


def run(*arguments, **options):
    return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          **options)


class ImportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"

    def events(self):
        done = run("dump", self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [" ".join(line.split()[3:]) for line in done.stdout.splitlines()]

    def import_file(self, source, *options):
        done = run("import", "-o", self.trace, *options, source)
        if "this steve was built without it" in done.stderr:
            self.skipTest("steve was built without zstd")
        self.assertEqual(done.returncode, 0, done.stderr)
        info = run("info", self.trace)
        self.assertEqual(info.returncode, 0, info.stderr)
        return {line[:24].strip(): line[24:] for line in info.stdout.splitlines()}

    def import_text(self, text, *options):
        source = self.folder / "source"
        source.write_text(text)
        return self.import_file(source, *options)

    def refuse(self, text, what, *options):
        self.trace.unlink(missing_ok=True)
        source = self.folder / "source"
        source.write_text(text)
        done = run("import", "-o", self.trace, *options, source)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(what, done.stderr)
        self.assertFalse(self.trace.exists(), "no half of a trace is left")


class Formats(ImportTest):
    def test_ops_have_accesses_in_runs_and_locks(self):
        self.import_file(DATA / "ops.txt", "--from=ops")
        self.assertEqual(self.events(), [
            "malloc 0 64", "access 0 0+16 0 2", "malloc 1 32", "access 1 0+4 1 0", "lock 0",
            "access 0 60+4 1 1", "unlock 0", "free 1"])

    def test_an_access_beyond_the_block_is_left_out_and_counted(self):
        self.import_text("0 N 1000 64\n0 L 1063 4\n0 S 999 1\n0 L 1060 4\n", "--from=ops")
        self.assertEqual(self.events(), ["malloc 0 64", "access 0 60+4 1 0"])

    def test_a_memtrace_attributes_addresses_to_blocks(self):
        info = self.import_text(">>> N 4096 100\n>>> L 4100 4\n>>> S 4195 1\n>>> S 4196 1\n"
                                ">>> M 8 4\n>>> F 4096 0\n>>> F 4096 0\n", "--from=ops")
        self.assertEqual(self.events(), ["malloc 0 100", "access 0 4+96 1 1", "free 0"])
        self.assertEqual(info["accesses of no block"], "2")
        self.assertEqual(info["frees of unseen blocks"], "1")

    def test_mtrace_of_the_c_library(self):
        self.import_file(DATA / "mtrace.txt", "--from=mtrace")
        self.assertEqual(self.events(), [
            "malloc 0 100", "malloc 1 150", "malloc 2 10", "realloc 0 5000", "free 1",
            "malloc 1 640", "free 2", "malloc 2 10", "free 1", "malloc 1 7777", "realloc 1 20"])

    def test_heaptrack_raw_and_interpreted_tell_the_same(self):
        found = []
        for name in ["heaptrack-raw.txt", "heaptrack.zst"]:
            self.import_file(DATA / name, "--from=heaptrack")
            found.append(self.events())
        self.assertEqual(found[0], found[1])
        self.assertEqual(len(found[0]), 15)
        self.assertEqual(found[0][:6], ["malloc 0 72704", "malloc 1 100", "malloc 2 150",
                                        "malloc 3 10", "free 1", "malloc 1 5000"])

    def test_lackey_without_allocations_gives_pages(self):
        info = self.import_file(DATA / "lackey.txt", "--from=lackey")
        lines = (DATA / "lackey.txt").read_text().split("\n")
        loads = sum(line.startswith((" L", " M")) for line in lines)
        stores = sum(line.startswith((" S", " M")) for line in lines)
        self.assertEqual((info["reads"], info["writes"]), (str(loads), str(stores)))
        pages = {int(line[3:].split(",")[0], 16) >> 12 for line in lines if line}
        self.assertEqual(info["allocations"], str(len(pages)))
        self.assertEqual({event.split()[2] for event in self.events()
                          if event.startswith("malloc")}, {"4096"})

    def test_lackey_with_lines_of_mtrace_has_blocks(self):
        self.import_text("==1== Lackey\nI  04000000,3\n= Start\n@ ./a b:[0x1] + 0x5000 0x20\n"
                         " S 5000,8\n L 501c,4\n M 9000,4\n@ ./a b:[0x1] - 0x5000\n", "--from=lackey",
                         "--grain=0")
        self.assertEqual(self.events(), ["malloc 0 32", "access 0 0+32 1 1", "free 0"])

    def test_a_block_that_lies_where_another_was_ends_that_one(self):
        info = self.import_text("@ x + 0x5000 0x100\n@ x + 0x50f0 0x100\n@ x + 0x4f00 0x200\n",
                                "--from=mtrace")
        self.assertEqual(info["blocks that vanished"], "2")
        self.assertEqual(info["live blocks at the end"], "1")

    def test_huge_blocks_take_no_time_for_each_of_their_pages(self):
        size = (1 << 38) - 4096
        lines = ["= Start"]
        for i in range(50):
            address = 0x10000 + i * 0x5000000000
            lines += [f"@ x + {address:#x} {size:#x}", f"@ x + {address + (1 << 38):#x} 0x10"]
        # in the middle of the first, whose end was not recorded
        lines += ["@ x + 0x20000000 0x40", "@ x - 0x20000000"]
        info = self.import_text("\n".join(lines) + "\n", "--from=mtrace")
        self.assertEqual(info["blocks that vanished"], "1")
        self.assertEqual(info["live blocks at the end"], "99")

    def test_damage_is_an_error_that_names_the_line(self):
        self.refuse("0 N 1000 64\n0 X 1000 8\n", "line 2: the operation is none of", "--from=ops")
        self.refuse("0 N 1000 64\n0 N 1000 64\n", "line 2: the handle is live", "--from=ops")
        self.refuse("0 F 0 0\n", "line 1: the handle is not live", "--from=ops")
        self.refuse("0 N 0 64\n0 U 0 0\n", "line 2: block 0 is unlocked but not locked", "--from=ops")
        self.refuse("= Start\n@ x + 0x10\n", "line 2: this is no line of mtrace", "--from=mtrace")
        self.refuse("@ x + 0x5000 0xffffffffffff\n", "line 1: the size is too large", "--from=mtrace")
        self.refuse(" L 5000\n", "line 1: this is no line of Lackey", "--from=lackey")
        self.refuse("+ 0\n", "no version first", "--from=heaptrack")
        self.refuse("v 10400 3\na 10 1\n+ 1\n", "line 3: there is no such kind", "--from=heaptrack")
        self.refuse("v 10400 3\n+ 1 2 3 4\n", "line 2: there is no such kind", "--from=heaptrack")
        self.refuse("\x1f", "line 1", "--from=ops")
        self.refuse("0" * 100000, "longer than 64 KiB", "--from=ops")

    def test_mutated_files_never_crash(self):
        seed = 1
        for name, form in [("ops.txt", "ops"), ("mtrace.txt", "mtrace"), ("lackey.txt", "lackey"),
                           ("heaptrack-raw.txt", "heaptrack"), ("heaptrack.zst", "heaptrack")]:
            whole = (DATA / name).read_bytes()[:600]
            generator = random.Random(seed)
            for _ in range(25):
                damaged = bytearray(whole)
                for _ in range(generator.randrange(1, 6)):
                    place = generator.randrange(len(damaged))
                    if generator.random() < 0.3:
                        del damaged[place:place + generator.randrange(8)]
                    else:
                        damaged[place] = generator.choice(b"0159afFNLS+-<>@=, \n\x00\xff")
                source = self.folder / "source"
                source.write_bytes(damaged)
                done = run("import", f"--from={form}", "-o", self.trace, source)
                self.assertIn(done.returncode, (0, 1), damaged)
                if done.returncode == 0:
                    self.assertEqual(run("info", self.trace).returncode, 0, damaged)

    def test_a_long_file_has_a_progress_bar_on_a_terminal(self):
        source = self.folder / "source"
        source.write_text("".join(f"{i % 9} N {i * 64} 8\n{i % 9} F {i * 64} 0\n" for i in range(70000)))
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            self.skipTest(f"no terminal is to be had here: {error}")
        with subprocess.Popen([STEVE, "import", "--from=ops", "-o", self.trace, source], stderr=theirs):
            os.close(theirs)
            shown = b""
            try:
                while read := os.read(ours, 4096):
                    shown += read
            except OSError:
                pass  # how the end of a terminal shows
        os.close(ours)
        self.assertRegex(shown.decode(), r"importing +\[#+ +\] +[0-9]+ %")
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)

    def test_a_wrong_command_line_is_2(self):
        for arguments in [[], ["-o", "x", "y"], ["--from=nonsense", "-o", "x", "y"],
                          ["--from=ops", "y"], ["--from=lackey", "--grain=24", "-o", "x", "y"]]:
            self.assertEqual(run("import", *arguments).returncode, 2)


class LongTraces(ImportTest):
    def generate(self, events):
        subprocess.run([GENERATE, str(events), self.trace], check=True, timeout=120)

    def test_reading_takes_no_more_memory_for_a_longer_trace(self):
        peaks = []
        for events in [100_000, 2_000_000]:
            self.generate(events)
            program = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True,"
                       "stdout=subprocess.DEVNULL); print(resource.getrusage("
                       "resource.RUSAGE_CHILDREN).ru_maxrss)")
            done = subprocess.run([sys.executable, "-c", program, STEVE, "info", self.trace],
                                  capture_output=True, text=True, check=True, timeout=120)
            peaks.append(int(done.stdout))
        self.assertLess(peaks[1], peaks[0] + 1024, "KiB")

    def test_a_trace_is_read_from_a_pipe(self):
        self.generate(50_000)
        with open(self.trace, "rb") as file:
            cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
            done = run("info", "/dev/stdin", stdin=cat.stdout)
            cat.wait()
            cat.stdout.close()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("50000", done.stdout)

    def test_any_event_can_be_looked_up(self):
        self.generate(300_000)
        every = run("dump", self.trace).stdout.splitlines()
        for first in [0, 1, 77_777, 150_000, 299_999]:
            done = run("dump", f"--first={first}", "--count=3", self.trace)
            self.assertEqual(done.stdout.splitlines(), every[first:first + 3])
        self.assertEqual(run("dump", "--first=300000", self.trace).stdout, "")


if __name__ == "__main__":
    STEVE, GENERATE = map(os.path.abspath, sys.argv[1:3])
    DATA = pathlib.Path(sys.argv[3]).resolve()
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
