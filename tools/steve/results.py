#!/usr/bin/env python3
"""Writes the tables of the results page from what tools/subjects left: results.py FOLDER OUTPUT

Sections of subjects without results in FOLDER stay as they are in OUTPUT.
"""

import json
import os
import pathlib
import platform
import sys

COLUMNS = ["allocator", "CPU ns per operation", "p50 ns", "p99 ns", "p99.9 ns", "resident / live, average",
           "peak MiB", "at the end MiB", "after all was given back MiB", "smallest heap MiB",
           "longest pause, CPU \u00b5s", "locked at compactions, % of blocks", "% of bytes"]
SUBJECTS = ["sqlite3", "tar", "ls", "latex", "python3", "soffice", "redis-server"]
PORTS = ["words", "editor"]
METHODS = ["coarse", "fine", "burst"]
SCORES = "Inferred locks"
SCORE_COLUMNS = ["program", "method", "locks", "precision %", "recall %", "locked beyond the hand's, times the hand's",
                 "accesses under a lock %", "blocks locked, average %", "bytes locked, average %"]


def locked(each, part, whole):
    rows = [row for row in each["compactions"] if row[whole]]
    if not any(row["locked_blocks"] for row in rows):
        return "-"
    return f"{100 * sum(row[part] / row[whole] for row in rows) / len(rows):.2f}"


def cells(each):
    if each["failed"]:
        return [each["name"], each["failure"]] + [""] * (len(COLUMNS) - 2)
    live = each["live_average_bytes"]
    mib = [f"{each[key] / (1 << 20):.2f}" for key in
           ("resident_peak_bytes", "resident_end_bytes", "resident_after_full_compaction_bytes")]
    return [each["name"], f"{each['cpu_ns_per_operation']:.0f}",
            *(f"{each[key]['mean']:.0f}" for key in ("p50_ns", "p99_ns", "p999_ns")),
            f"{each['resident_average_bytes'] / live:.2f}" if live else "-", *mib,
            f"{each['smallest_heap_bytes'] / (1 << 20):.2f}" if "smallest_heap_bytes" in each else "-",
            f"{each['pause_cpu']['max_us']:.0f}" if each["pauses"] else "-",
            locked(each, "locked_blocks", "blocks"), locked(each, "locked_bytes", "bytes")]


def table(rows):
    # A column that nobody has a figure in says nothing.
    kept = [at for at in range(len(rows[0])) if any(row[at] not in ("-", "") for row in rows[1:])]
    rows = [[row[at] for at in kept] for row in rows]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for place, cell in enumerate(row):
            lines.append(("   * - " if place == 0 else "     - ") + cell)
    return lines + [""]


def conditions(path):
    if not path.exists():
        return ""
    date, commit, others = path.read_text().split("\n")[:3]
    return f" Replayed on {date}, the library as of commit {commit}; other programs had {others} % of the processors meanwhile."


def section(folder, subject):
    results = json.loads((folder / f"{subject}.json").read_text())
    info = {line[:24].strip(): line[24:] for line in (folder / f"{subject}.info").read_text().splitlines()}
    good = next(each for each in results["allocators"] if not each["failed"])
    command = "tools/subjects " + subject.replace("-accesses", " --accesses")
    lines = [subject, "~" * len(subject), "",
             f"``{command}``: {good['operations']} operations, {info['allocations']} allocations, "
             f"{info['threads']} threads, {info['peak of live bytes'].split('(')[-1].rstrip(')')} live at the "
             f"peak; an idle point every {results['idle_every']} operations, with {results['budget_us']} \u00b5s; "
             f"{len(good['repeats'])} passes for speed.{conditions(folder / f'{subject}.conditions')}", ""]
    figures = folder / f"{subject}.infer"
    if figures.exists() and subject.endswith("-accesses"):
        lines += ["::", ""] + ["   " + line for line in figures.read_text().splitlines()] + [""]
    return lines + table([COLUMNS] + [cells(each) for each in results["allocators"]])


def share(part, whole):
    return f"{100 * part / whole:.3f}" if whole else "-"


def scores(folder):
    """What each method of inference finds of the locks placed by hand in the ported programs."""
    rows = [SCORE_COLUMNS]
    for port in PORTS:
        found = [json.loads((folder / f"{port}.{method}.json").read_text()) for method in METHODS]
        hand = found[0]
        rows.append([port, "by hand", str(hand["hand_locks"]), "100.00", "100.00", "0.00", "-",
                     share(hand["hand"], hand["live"]), share(hand["hand_bytes"], hand["live_bytes"])])
        for each in found:
            rows.append([port, each["method"], str(each["locks"]), f"{100 * each['precision']:.2f}",
                         f"{100 * each['recall']:.2f}", f"{(each['inferred'] - each['both']) / each['hand']:.2f}",
                         f"{100 * each['covered'] / each['accesses']:.2f}",
                         share(each["inferred"], each["live"]), share(each["inferred_bytes"], each["live_bytes"])])
    text = ("``tools/subjects --results``: two small programs of ours that keep their data behind handles, a counter of "
            "words and a line editor, recorded with their accesses and with the locks that a hand placed. Time is counted "
            "in accesses, and summed over blocks.")
    return [SCORES, "~" * len(SCORES), "", text, ""] + table(rows)


def where():
    names = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return (f"Printed by ``tools/subjects --results`` on {names[0] if names else platform.machine()}, "
            f"{os.cpu_count()} cores, Linux {platform.release()}.")


def sections_of(path):
    """The sections of a page written before, by subject."""
    found, name = {}, None
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line, following in zip(lines, lines[1:] + [""]):
        if line and following == "~" * len(line):
            name = line
        if name:
            found.setdefault(name, []).append(line)
    return found


def main():
    folder, output = map(pathlib.Path, sys.argv[1:3])
    names = [name for subject in SUBJECTS for name in (subject, subject + "-accesses")]
    renewed = [name for name in names if (folder / f"{name}.json").exists()]
    if all((folder / f"{port}.{method}.json").exists() for port in PORTS for method in METHODS):
        renewed.append(SCORES)
    names.append(SCORES)
    if not renewed:
        sys.exit(f"results: there is nothing in {folder}; run tools/subjects first")
    kept = sections_of(output)
    lines = [where(), ""]
    for name in names:
        if name in renewed:
            found = scores(folder) if name == SCORES else section(folder, name)
        else:
            found = kept.get(name, [])
        lines += found if not found or found[-1] == "" else found + [""]
    output.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
