#!/usr/bin/env python3
"""What recording costs: runs programs plainly and under steve in turn and compares the two runs
of each pair; also with call stacks: overhead.py STEVE [ROUNDS]"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SQL = """
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, body TEXT);
CREATE INDEX by_name ON t(name);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200000)
    INSERT INTO t SELECT i, hex(randomblob(8)), hex(randomblob(20 + i*7919%180)) FROM n;
SELECT count(*), sum(length(body)) FROM t;
DELETE FROM t WHERE id % 10 <> 0;
VACUUM;
"""
JSON = """
import json
rows = [{"id": i, "name": f"n{i}", "tags": ["t%d" % (i * j % 100) for j in range(5)]}
        for i in range(60000)]
json.loads(json.dumps(rows))
"""
PROGRAMS = [
    ("sqlite3, 200 000 rows in memory", "sqlite3", [":memory:", SQL], {}),
    ("python3 parsing JSON, PYTHONMALLOC=malloc", "/usr/bin/python3", ["-c", JSON],
     {"PYTHONMALLOC": "malloc"}),
]


def seconds(command, environment):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    return time.monotonic() - start


def main():
    steve, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory(prefix="steve-overhead-") as folder:
        print(f"medians of {rounds} runs each, in turn, {os.cpu_count()} processors, seconds")
        for name, program, arguments, environment in PROGRAMS:
            if shutil.which(program) is None:
                print(f"{name}: not installed")
                continue
            plain = [program, *arguments]
            for options in [[], ["--stacks=8"]]:
                recorded = [steve, "record", "-q", "-o", f"{folder}/trace", *options, "--", *plain]
                times = [(seconds(plain, environment), seconds(recorded, environment))
                         for _ in range(rounds)]
                without, with_steve = (statistics.median(each) for each in zip(*times))
                ratio = statistics.median(second / first for first, second in times)
                print(f"{' '.join([name, *options])}: plain {without:.3f}, recorded {with_steve:.3f}, "
                      f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
