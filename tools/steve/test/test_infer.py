#!/usr/bin/env python3
"""Compares what steve infers with slow and simple models of the methods.

Usage: test_infer.py STEVE
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

STEVE = None


def run(*arguments):
    return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def random_ops(seed, hand_locks=False):
    """Lines of an ops file: blocks that are made, accessed in bursts, locked, and most of them freed."""
    generator = random.Random(seed)
    lines, live, locked, number = [], [], [], 0
    while len(lines) < 600:
        choice = generator.random()
        if not live or choice < 0.12:
            lines.append(f"{number} N {number * 1000} 100")
            live.append(number)
            number += 1
        elif choice < 0.2 and len(live) > 3:
            block = live.pop(generator.randrange(len(live)))
            while block in locked:
                locked.remove(block)
                lines.append(f"{block} U 0 0")
            lines.append(f"{block} F 0 0")
        elif hand_locks and choice < 0.3:
            block = generator.choice(live)
            locked.append(block)
            lines.append(f"{block} L 0 0")
        elif hand_locks and locked and choice < 0.4:
            lines.append(f"{locked.pop(generator.randrange(len(locked)))} U 0 0")
        else:
            block = live[min(int(generator.expovariate(0.5)), len(live) - 1)]
            for _ in range(generator.randrange(1, 5)):
                lines.append(f"{block} L {block * 1000 + generator.randrange(90)} 4")
    return "\n".join(lines) + "\n"


class InferTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"
        self.output = self.folder / "output"

    def import_ops(self, text):
        source = self.folder / "ops"
        source.write_text(text)
        done = run("import", "--from=ops", "-o", self.trace, source)
        self.assertEqual(done.returncode, 0, done.stderr)

    def events(self, trace):
        done = run("dump", trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [line.split()[3:] for line in done.stdout.splitlines()]

    def infer(self, *options):
        figures = self.folder / "figures"
        done = run("infer", "-o", self.output, f"--json={figures}", *options, self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        info = run("info", self.output)
        self.assertEqual(info.returncode, 0, info.stderr)
        return json.loads(figures.read_text())

    def held(self):
        """Each event that is no lock, and which blocks are locked then: a lock stands before the
        access it is for, an unlock after it."""
        result, locked = [], set()
        for operation, *operands in self.events(self.output):
            if operation == "lock":
                locked.add(operands[0])
            elif operation == "unlock":
                locked.remove(operands[0])
                result[-1][2] = frozenset(locked)
            else:
                result.append([operation, operands, frozenset(locked)])
        return result


def weight(operation, operands):
    return int(operands[2]) + int(operands[3]) if operation == "access" else 1


class Fine(InferTest):
    def model(self, events, gain, loss):
        """The life value of every live block, counted down at every event."""
        life, result = {}, []
        for operation, operands in events:
            block = operands[0]
            if operation == "malloc":
                life[block] = 0
            for other in life:
                if other != block or operation != "access":
                    life[other] = max(0, life[other] - loss * weight(operation, operands))
            if operation == "access":
                life[block] += gain * weight(operation, operands)
            elif operation == "free":
                del life[block]
            result.append(frozenset(other for other in life if life[other] > 0))
        return result

    def test_it_is_what_the_definition_says(self):
        for seed, gain, loss in [(1, 1, 0.5), (2, 1, 0.5), (3, 2, 0.25), (4, 1, 1), (5, 0.5, 1.5)]:
            with self.subTest(seed=seed):
                self.import_ops(random_ops(seed))
                self.infer("--method=fine", f"--gain={gain}", f"--loss={loss}", "--keep-open")
                found = self.held()
                events = [each[:2] for each in found]
                self.assertEqual([list(each) for each in self.events(self.trace)],
                                 [[each[0], *each[1]] for each in events], "nothing else changes")
                model = self.model(events, gain, loss)
                for place, each in enumerate(found):
                    # A block that is freed next is unlocked for that, whatever its value.
                    following = found[place + 1] if place + 1 < len(found) else ["", []]
                    ends = set(following[1][:1]) if following[0] == "free" else set()
                    self.assertEqual(each[2] - ends, model[place] - ends, f"event {place} {each}")


class Coarse(InferTest):
    def test_blocks_with_the_share_are_locked_for_life_and_no_others(self):
        for seed, share in [(1, 5), (2, 1), (3, 10), (4, 0)]:
            self.import_ops(random_ops(seed))
            events = self.events(self.trace)
            lives, live, wanted = {}, {}, []
            for place, (operation, block, *operands) in enumerate(events):
                if operation == "malloc":
                    live[block] = place
                    lives[place] = [0, 0, block]
                elif operation == "access":
                    count = int(operands[1]) + int(operands[2])
                    for other, begun in live.items():
                        lives[begun][1] += count
                        lives[begun][0] += count if other == block else 0
                elif operation == "free":
                    del live[block]
            wanted = {begun for begun, (own, every, _) in lives.items()
                      if own and own >= share / 100 * every}
            self.infer("--method=coarse", f"--share={share}", "--keep-open")
            found, place = set(), -1
            for operation, block, *operands in self.events(self.output):
                if operation == "lock":
                    found.add(place)
                elif operation != "unlock":
                    place += 1
            self.assertEqual(found, wanted)
            self.assertTrue(wanted)


class Burst(InferTest):
    def model(self, events, gap):
        """(first, last) event of every burst, by looking at each block alone."""
        bursts, last, clock = {}, {}, 0
        for place, (operation, block, *operands) in enumerate(events):
            if operation == "access":
                # The line holds back what is not older than the gap before this event.
                if block in last and clock - last[block][1] <= gap:
                    bursts[last[block][0]] = place
                else:
                    last[block] = [place, 0]
                    bursts[place] = place
                clock += weight(operation, [block, *operands])
                last[block][1] = clock
            else:
                last.pop(block, None)
                clock += 1
        return bursts

    def test_a_lock_begins_and_ends_with_an_access_and_bridges_short_gaps(self):
        for seed, gap in [(1, 10), (2, 50), (3, 0), (4, 100000)]:
            with self.subTest(seed=seed):
                self.import_ops(random_ops(seed))
                self.infer("--method=burst", f"--gap={gap}", "--keep-open")
                model = self.model(self.events(self.trace), gap)
                found, begun, place = {}, {}, -1
                for operation, block, *_ in self.events(self.output):
                    if operation == "lock":
                        begun[block] = place + 1
                    elif operation == "unlock":
                        found[begun.pop(block)] = place
                    else:
                        place += 1
                self.assertEqual(begun, {})
                self.assertEqual(found, model)


class Score(InferTest):
    def test_precision_and_recall_are_shares_of_time(self):
        for method in ["coarse", "fine", "burst"]:
            for seed in range(4):
                self.import_ops(random_ops(seed, hand_locks=True))
                figures = self.infer(f"--method={method}", "--keep-open", "--gap=20", "--share=10")
                hand, inferred, live = {}, set(), 0
                blocks, times = set(), [0, 0, 0]
                # Both traces in step: the original's locks are the hand's.
                ours = iter(self.events(self.output) + [["end", ""]])
                original = self.events(self.trace)
                pending = next(ours)
                for operation, block, *operands in original + [["end", ""]]:
                    if operation == "lock":
                        hand[block] = hand.get(block, 0) + 1
                        continue
                    if operation == "unlock":
                        hand[block] -= 1
                        continue
                    while pending[0] in ("lock", "unlock"):
                        (inferred.add if pending[0] == "lock" else inferred.discard)(pending[1])
                        pending = next(ours)
                    if operation == "end":
                        break
                    self.assertEqual(pending, [operation, block, *operands])
                    if operation == "malloc":
                        blocks.add(block)
                    if operation == "free":
                        blocks.discard(block)
                    time = weight(operation, [block, *operands])
                    by_hand = {each for each in hand if hand[each]}
                    times[0] += time * len(by_hand)
                    times[1] += time * len(inferred)
                    times[2] += time * len(by_hand & inferred)
                    live += time * len(blocks)
                    pending = next(ours)
                self.assertEqual([figures["hand"], figures["inferred"], figures["both"]], times)
                self.assertEqual(figures["live"], live)
                self.assertAlmostEqual(figures["precision"], times[2] / times[1], places=5)
                self.assertAlmostEqual(figures["recall"], times[2] / times[0], places=5)

    def test_the_same_locks_score_in_full(self):
        self.import_ops("0 N 0 100\n1 N 200 100\n0 L 0 0\n0 L 4 4\n0 L 8 4\n0 U 0 0\n1 L 0 0\n"
                        "1 S 200 8\n1 U 0 0\n0 F 0 0\n1 F 0 0\n")
        figures = self.infer("--gap=0")
        self.assertEqual((figures["precision"], figures["recall"]), (1, 1))
        self.assertEqual(figures["covered"], figures["accesses"])
        self.assertEqual(figures["hand_locks"], 2)


class Ends(InferTest):
    def test_a_block_that_is_never_freed_ends_with_its_last_access(self):
        self.import_ops("0 N 0 100\n1 N 200 100\n2 N 400 100\n0 L 4 4\n1 L 204 4\n0 L 8 4\n1 L 204 4\n"
                        "1 F 0 0\n")
        for method in ["coarse", "fine", "burst"]:
            self.infer(f"--method={method}")
            plain = [" ".join(each) for each in self.events(self.output)
                     if each[0] not in ("lock", "unlock")]
            self.assertEqual(plain, [
                "malloc 0 100", "malloc 1 100", "malloc 2 100", "free 2", "access 0 4+4 1 0",
                "access 1 4+4 1 0", "access 0 8+4 1 0", "free 0", "access 1 4+4 1 0", "free 1"])

    def test_accesses_may_be_left_out(self):
        self.import_ops(random_ops(1))
        self.infer("--no-accesses")
        kinds = {each[0] for each in self.events(self.output)}
        self.assertEqual(kinds, {"malloc", "free", "lock", "unlock"})

    def test_a_trace_without_accesses_is_an_error(self):
        self.import_ops("0 N 0 100\n0 F 0 0\n")
        done = run("infer", self.trace)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no accesses", done.stderr)

    def test_what_is_inferred_can_be_replayed(self):
        self.import_ops(random_ops(7))
        for method in ["coarse", "fine", "burst"]:
            self.infer(f"--method={method}")
            done = run("replay", "-a", "jeff,malloc", "--repeat=1", "--idle-every=5", self.output)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_wrong_command_line_is_2(self):
        for arguments in [[], ["-m", "nonsense", "x"], ["--share=101", "x"], ["--loss=0", "x"],
                          ["--gap=-1", "x"]]:
            self.assertEqual(run("infer", *arguments).returncode, 2)


if __name__ == "__main__":
    STEVE = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
