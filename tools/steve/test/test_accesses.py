#!/usr/bin/env python3
"""Records programs with their accesses, and scores inferred locks against those placed by hand.

Usage: test_accesses.py STEVE SUBJECT TOUCH WORDS EDITOR WORDS_ON_JEFF EDITOR_ON_JEFF
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

STEVE = SUBJECT = TOUCH = None
PORTS = {}
MAKE = ("malloc", "calloc", "aligned")
SIZES = (11111, 22222, 44444, 30001, 30002, 30003, 30004, 60001, 20001)
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JEFF_")}


def run(*arguments, **options):
    return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True, timeout=240,
                          env=ENVIRONMENT, **options)


def text(lines):
    generator = random.Random(1)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randrange(2, 9)))
             for _ in range(400)]
    return "".join(" ".join(generator.choices(words, k=8)) + "\n" for _ in range(lines))


class AccessTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"

    def record(self, *command, options=(), status=0, **more):
        done = run("record", "--accesses", "-o", self.trace, *options, "--", *command, **more)
        self.assertEqual(done.returncode, status, done.stderr)
        return done

    def events(self, trace):
        done = run("dump", trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [line.split()[3:] for line in done.stdout.splitlines()]

    @staticmethod
    def sizes(events):
        """Of what is allocated or resized, the sizes that the subject is known by."""
        return [int(event[2]) for event in events
                if event[0] in MAKE + ("realloc",) and int(event[2]) in SIZES]

    def lives(self):
        """Events of each block, found by the size it was made with."""
        done = run("dump", self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        live, lives = {}, {}
        for line in done.stdout.splitlines():
            _, _, thread, operation, *numbers = line.split()
            if operation in ("malloc", "calloc", "aligned"):
                live[numbers[0]] = lives.setdefault(int(numbers[1]), [])
            elif operation != "stack":
                live[numbers[0]].append((operation, *numbers[1:], thread))
        return lives


class Recorder(AccessTest):
    def test_accesses_are_counted_block_by_block(self):
        self.record(TOUCH)
        lives = self.lives()
        self.assertEqual([event[:-1] for event in lives[777]],
                         [("access", "0+777", "0", "777")] +
                         [("access", f"{i}+1", "1", "0") for i in range(5)] + [("free",)])
        second = [event[:-1] for event in lives[8008]]
        self.assertEqual(second[:4], [("access", "0+8008", "0", "1001"), ("lock",),
                                      ("access", "16+80", "10", "0"), ("unlock",)])
        # The last of the loop and the one that is changed afterwards are neighbours.
        self.assertEqual(second[4:], [("access", f"{8 * i}+8", "1", "0") for i in range(4)] +
                         [("access", "0+40", "2", "1")])

    def test_what_the_system_writes_is_an_access(self):
        self.record(TOUCH)
        self.assertEqual([event[:-1] for event in self.lives()[3333]],
                         [("access", "0+20", "0", "1"), ("realloc", "4444"), ("free",)])

    def test_threads_are_told_apart(self):
        self.record(TOUCH)
        events = self.lives()[5555]
        self.assertEqual([event[:-1] for event in events], [("access", "0+50", "0", "50"), ("free",)])
        self.assertEqual({event[-1] for event in events}, {"1"})

    def test_call_stacks_come_with_the_allocations(self):
        self.record(TOUCH, options=["--stacks=6"])
        lines = run("dump", self.trace).stdout.splitlines()
        made = [at for at, line in enumerate(lines) if " malloc " in line or " realloc " in line]
        self.assertTrue(made)
        for at in made:
            words = lines[at - 1].split()
            self.assertEqual(words[3], "stack")
            self.assertLessEqual(len(words) - 4, 6)
            self.assertGreaterEqual(len(words) - 4, 2)
        done = run("info", "--sites", self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{os.path.basename(TOUCH)}+0x", done.stdout)

    def test_the_status_is_the_programs(self):
        self.record(TOUCH, "7", status=7)
        self.record("sh", "-c", "kill -9 $$", status=137)
        self.record("/nonexistent/program", status=127)

    def test_a_program_that_becomes_another_stays_in_one_trace(self):
        self.record(SUBJECT, "exec")
        events = self.events(self.trace)
        begins = [event[0] for event in events].index("exec")
        self.assertEqual([operation for operation, *_ in events].count("exec"), 1)
        self.assertEqual(self.sizes(events[:begins]), [11111, 22222])
        self.assertEqual(self.sizes(events[begins:]), [11111, 22222, 44444])
        # What was there before is freed, and later accesses are the new program's.
        live = [event[1] for event in events[:begins] if event[0] in MAKE]
        gone = [event[1] for event in events[:begins] if event[0] == "free"]
        self.assertEqual(sorted(live), sorted(gone))
        self.assertEqual(os.listdir(self.folder), ["trace"])

    def test_a_wrapper_is_followed_to_the_program(self):
        self.record("sh", "-c", f"{SUBJECT} fork; exec {SUBJECT} after-exec")
        self.assertEqual(self.sizes(self.events(self.trace))[-3:], [11111, 22222, 44444])
        self.assertEqual(os.listdir(self.folder), ["trace"])

    def children(self):
        return [self.folder / name for name in os.listdir(self.folder) if name != "trace"]

    def test_children_are_recorded_in_files_of_their_own_when_asked_for(self):
        self.record(SUBJECT, "fork", options=["--children", "--stacks=3"])
        child, = self.children()
        self.assertRegex(child.name, r"^trace\.[0-9]+$")
        self.assertEqual(self.sizes(self.events(child)), [30002])
        done = run("info", child)
        self.assertRegex(done.stdout, r"frees of unseen blocks +1\n")
        self.assertRegex(done.stdout, rf"command +{SUBJECT} fork\n")
        self.assertEqual(self.sizes(self.events(self.trace))[-2:], [30001, 30003])

    def test_a_child_may_use_and_resize_what_its_parent_allocated(self):
        self.record(SUBJECT, "inherit", options=["--children"])
        child, = self.children()
        events = [event for event in self.events(child) if event[0] != "access"]
        self.assertEqual(self.sizes(events), [60001, 20001])
        self.assertIn("free", [event[0] for event in events])
        # The old contents are copied by the allocator; the rest is the program's.
        self.assertIn(["60000+1", "0", "1"],
                      [event[2:5] for event in self.events(child) if event[0] == "access"])

    def test_programs_that_children_begin_are_recorded(self):
        self.record("sh", "-c", f"{SUBJECT} & {SUBJECT} after-exec & {SUBJECT} fork; wait",
                    options=["--children"])
        found = sorted(self.sizes(self.events(child)) for child in self.children())
        tails = sorted(sizes[-3:] for sizes in found)
        self.assertEqual(len(tails), 4)
        self.assertIn([11111, 22222, 44444], tails)
        self.assertIn([22222, 30001, 30003], tails)
        self.assertIn([30002], tails)
        for child in self.children():
            self.assertEqual(run("replay", "-q", "-a", "jeff", "--repeat=1", child).returncode, 0)

    def test_who_outlives_the_command_is_recorded_up_to_its_end(self):
        started = time.monotonic()
        self.record("sh", "-c", f"(sleep 60 >/dev/null 2>&1 &) ; {SUBJECT}", options=["--children"])
        self.assertLess(time.monotonic() - started, 50)
        self.assertIn([11111, 22222], [self.sizes(self.events(child)) for child in self.children()])

    def test_a_wrong_command_line_is_2(self):
        self.record(TOUCH, options=["--stacks=65"], status=2)


class Ports(AccessTest):
    def test_ports_do_the_same_with_marks_and_on_jeff(self):
        for name, (marked, on_jeff) in PORTS.items():
            outputs = [subprocess.run([program, "300"], input=text(100), capture_output=True,
                                      text=True, check=True).stdout for program in (marked, on_jeff)]
            self.assertEqual(*outputs, name)
            self.assertTrue(outputs[0])

    def score(self, name, *options):
        figures = self.folder / "figures"
        done = run("infer", f"--json={figures}", *options, self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(figures.read_text())

    def test_inferred_locks_are_scored_against_those_placed_by_hand(self):
        source = self.folder / "text"
        source.write_text(text(100))
        for name, (marked, _) in PORTS.items():
            with self.subTest(name), open(source) as file:
                self.record(marked, "300", stdin=file)
                fine = self.score(name, "--method=fine")
                burst = self.score(name, "--method=burst")
                coarse = self.score(name, "--method=coarse")
                self.assertGreater(burst["hand_locks"], 1000)
                self.assertEqual(burst["covered"], burst["accesses"])
                self.assertEqual(fine["covered"], fine["accesses"])
                self.assertGreater(burst["precision"], fine["precision"])
                self.assertGreater(burst["recall"], 0.5)
                # What is locked too long, in blocks times accesses.
                excess = [each["inferred"] - each["both"] for each in (burst, fine, coarse)]
                self.assertLess(excess[0], excess[1])

    def test_a_port_that_is_recorded_can_be_replayed_with_its_own_locks(self):
        source = self.folder / "text"
        source.write_text(text(100))
        with open(source) as file:
            self.record(PORTS["editor"][0], "300", stdin=file)
        done = run("replay", "-a", "jeff", "--repeat=1", "--idle-every=50", self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    STEVE, SUBJECT, TOUCH, *ports = map(os.path.abspath, sys.argv[1:8])
    PORTS = {"words": (ports[0], ports[2]), "editor": (ports[1], ports[3])}
    unittest.main(argv=sys.argv[:1] + sys.argv[8:])
