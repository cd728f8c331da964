#!/usr/bin/env python3
"""Measures what steve costs, and compares it with its targets.

Usage: figures.py STEVE GENERATE [EVENTS] [PART]...
EVENTS of the long trace are 100 million by default. PART is recording, accesses, infer or replay; all
of them without one. Each takes less than two minutes on an idle machine.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPEATS = 7
QUERY = ("CREATE TABLE t(x, y); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
         "i < {rows}) INSERT INTO t SELECT hex(randomblob(i % 100)), i FROM n; SELECT count(*) FROM t "
         "WHERE x IN (SELECT x FROM t ORDER BY y DESC); DELETE FROM t WHERE rowid % 5 <> 0; VACUUM;")


def wall(*command):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def ratio(plain, measured):
    """The median over pairs of runs, one right after the other."""
    pairs = [(wall(*plain), wall(*measured)) for _ in range(REPEATS)]
    return statistics.median(second / first for first, second in pairs)


def peak_kib(*command):
    """Most memory that a command and its children have resident."""
    program = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
               "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True,
                          check=True)
    return int(done.stdout)


def show(subject, figure, target, reached):
    print(f"{subject:<68} {figure:>9} {target:>8} {'yes' if reached else 'NO'}", flush=True)


def recording(steve, generate, folder, events):
    del generate, events
    if not shutil.which("sqlite3"):
        return
    plain = ["sqlite3", ":memory:", QUERY.format(rows=150000)]
    found = ratio(plain, [steve, "record", "-q", "-o", f"{folder}/trace", "--", *plain])
    show("recording allocations of sqlite3, times its own time", f"{found:.2f}", "<= 1.3", found <= 1.3)


def accesses(steve, generate, folder, events):
    del generate, events
    if not shutil.which("sqlite3") or not shutil.which("valgrind"):
        return
    plain = ["sqlite3", ":memory:", QUERY.format(rows=12000)]
    none = ["valgrind", "-q", "--tool=none", *plain]
    for options, name in ([], ""), (["--children"], ", --children"):
        found = ratio(none, [steve, "record", "--accesses", "-q", *options, "-o", f"{folder}/trace", "--", *plain])
        show(f"recording accesses of sqlite3{name}, times Valgrind's none", f"{found:.2f}", "<= 3", found <= 3)


def inference(steve, generate, folder, events):
    del generate, events
    if not shutil.which("sqlite3") or not shutil.which("valgrind"):
        return
    trace, figures = f"{folder}/trace", f"{folder}/figures"
    subprocess.run([steve, "record", "--accesses", "-q", "-o", trace, "--", "sqlite3", ":memory:",
                    QUERY.format(rows=12000)], check=True, stdout=subprocess.DEVNULL)
    for method in ["coarse", "fine", "burst"]:
        subprocess.run([steve, "infer", f"--method={method}", f"--json={figures}", "-o", f"{folder}/locked", trace],
                       check=True, stdout=subprocess.DEVNULL)
        infer = json.loads(pathlib.Path(figures).read_text())
        speed = infer["accesses"] / infer["cpu_seconds"] / 1e6
        show(f"inferring locks, {method}, million accesses per second of CPU", f"{speed:.1f}", ">= 10",
             speed >= 10)


def replaying(steve, generate, folder, events):
    trace, figures = f"{folder}/trace", f"{folder}/figures"
    peaks = []
    for count in [events // 100, events]:
        subprocess.run([generate, str(count), trace], check=True)
        peaks.append(peak_kib(steve, "replay", "-q", "-a", "ideal", "--repeat=1", "--samples=100",
                              "--idle-every=1000000", f"--json={figures}", trace))
    replay = json.loads(pathlib.Path(figures).read_text())["allocators"][0]
    overhead = replay["cpu_ns_per_operation"]
    show("replay outside of the allocator, ns of CPU per operation", f"{overhead:.1f}", "< 20", overhead < 20)
    show(f"memory of a replay of {events // 1_000_000} million events, times that of 1 %",
         f"{peaks[1] / peaks[0]:.3f}", "<= 1.05", peaks[1] <= 1.05 * peaks[0])


PARTS = {"recording": recording, "accesses": accesses, "infer": inference, "replay": replaying}


def main():
    steve, generate = map(os.path.abspath, sys.argv[1:3])
    numbers = [int(word) for word in sys.argv[3:] if word.isdigit()]
    parts = [word for word in sys.argv[3:] if not word.isdigit()] or list(PARTS)
    if not set(parts) <= set(PARTS):
        sys.exit(__doc__)
    print(f"{'subject':<68} {'measured':>9} {'target':>8} reached")
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="steve-figures-") as folder:
            PARTS[part](steve, generate, folder, numbers[0] if numbers else 100_000_000)


if __name__ == "__main__":
    main()
