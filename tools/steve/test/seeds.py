#!/usr/bin/env python3
"""Makes the inputs that the fuzzers begin with: seeds.py STEVE SUBJECT FOLDER

FOLDER/trace gets small traces of every kind of event, FOLDER/import the files of other tools that the
tests have, each after a byte that names its format.
"""

import pathlib
import subprocess
import sys

FORMATS = ["ops", "heaptrack", "mtrace", "lackey"]


def main():
    steve, subject = sys.argv[1:3]
    folder = pathlib.Path(sys.argv[3])
    traces, imports = folder / "trace", folder / "import"
    for each in (traces, imports):
        each.mkdir(parents=True, exist_ok=True)
    data = pathlib.Path(__file__).resolve().parent / "data"

    def make(*arguments):
        subprocess.run([steve, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    for file, name in [("ops.txt", "ops"), ("heaptrack-raw.txt", "heaptrack"), ("mtrace.txt", "mtrace"),
                       ("lackey.txt", "lackey")]:
        content = (data / file).read_bytes()[:4000]
        (imports / name).write_bytes(bytes([FORMATS.index(name)]) + content)
        make("import", "--no-compress", f"--from={name}", "-o", traces / name, data / file)
    for method in ("coarse", "fine", "burst"):
        make("infer", f"--method={method}", "-o", traces / f"locked-{method}", traces / "lackey")
    for name, options in [("plain", []), ("stored", ["--no-compress"]),
                          ("stacks", ["--no-compress", "--stacks=3"])]:
        make("record", "-q", "-o", traces / f"recorded-{name}", *options, "--", subject, "all")


if __name__ == "__main__":
    main()
