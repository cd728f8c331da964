#!/usr/bin/env python3
"""Makes one self-contained HTML page of a replay; `steve report` runs it.

usage: steve-report STEVE -o PAGE.html --trace TRACE --json RESULTS [--maps PREFIX] [--sweep[=TRACE]]
                    [--pictures FOLDER] [--video FILE] [--quiet]

Everything is in the page: it needs no network and no other file. --pictures writes each picture as a
file, too; --video the animation as a film, with ffmpeg.
"""

import argparse
import base64
import io
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    import jinja2
    import matplotlib
    import numpy
    from PIL import Image
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"steve: the report needs {error.name} (Debian: python3-matplotlib python3-numpy "
             "python3-jinja2 python3-tqdm python3-pil)")

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b",
           "#17becf", "#bcbd22", "#1f3b73"]
UNITS = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")]
MAP_WIDTH = 128
# Of the heap map: nothing there, nearly empty to full, locked.
PALETTE = ([(255, 255, 255)] +
           [(int(222 - 214 * i / 62), int(235 - 187 * i / 62), int(247 - 140 * i / 62))
            for i in range(63)] + [(213, 94, 0)])


LEGEND = [(PALETTE[0], "empty page"), (PALETTE[1], "nearly empty"), (PALETTE[32], "half full"),
          (PALETTE[63], "full"), (PALETTE[64], "holds a locked block")]


def unit_for(largest):
    return next((unit for unit in UNITS if largest >= unit[0]), UNITS[-1])


def bytes_text(number):
    size, name = unit_for(abs(number))
    return f"{number / size:.2f} {name}" if size > 1 else f"{number:.0f} {name}"


class Pictures:
    """Draws, and keeps what was drawn for the page."""

    def __init__(self, folder):
        self.folder = folder
        self.sections = []

    def add(self, name, title, text, figure, legend=False):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110)
        plt.close(figure)
        self.add_bytes(name, title, text, stream.getvalue(), "png", legend)

    def add_bytes(self, name, title, text, content, kind, legend=False):
        if self.folder:
            (self.folder / f"{name}.{kind}").write_bytes(content)
        self.sections.append({"name": name, "title": title, "text": text, "kind": kind,
                              "data": base64.b64encode(content).decode("ascii"), "legend": legend,
                              "pixels": name.startswith(("heap-", "animation-"))})


def figure(height=4.2, **options):
    return plt.subplots(figsize=(10, height), constrained_layout=True, **options)


def legend_above(axes, columns=6):
    """Where it hides no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False, ncol=columns,
                fontsize=8)


def column(rows, key, unit=1):
    return [row[key] / unit for row in rows]


# --- Pictures of the replay.

def draw_memory(results, pictures):
    shown, axes_figure = results["shown"], figure()
    drawing, axes = axes_figure
    largest = max(sample["resident_bytes"] for each in shown for sample in each["samples"])
    unit, name = unit_for(largest)
    for each in shown:
        run = each["samples"][:-1]
        axes.plot(column(run, "event", 1e6), column(run, "resident_bytes", unit), linewidth=1.2,
                  color=each["colour"], label=each["name"])
    first = shown[0]["samples"][:-1]
    axes.fill_between(column(first, "event", 1e6), column(first, "live_bytes", unit),
                      color="#d5d9de", zorder=0, label="live")
    axes.set(xlabel="million operations", ylabel=f"resident ({name})", ylim=(0, None))
    legend_above(axes)
    pictures.add("memory", "Memory over time",
                 "Resident memory of each allocator over what the program had asked for.", drawing)


def draw_share(results, pictures):
    drawing, axes = figure()
    shown = results["shown"]
    unit, name = unit_for(max(sample["share_bytes"] for each in shown for sample in each["samples"]))
    for each in shown:
        run = each["samples"][:-1]
        axes.plot(column(run, "event", 1e6), column(run, "share_bytes", unit), linewidth=1.2,
                  color=each["colour"], label=each["name"])
    axes.set(xlabel="million operations", ylabel=f"proportional set size ({name})", ylim=(0, None))
    legend_above(axes)
    pictures.add("share", "Memory by share over time",
                 "The same with pages that several processes share counted in part (PSS), and pages of files not at all.", drawing)


def draw_fragmentation(results, pictures):
    drawing, axes = figure()
    for each in results["shown"]:
        run = [sample for sample in each["samples"][:-1] if sample["live_bytes"] > 0]
        axes.plot(column(run, "event", 1e6),
                  [sample["resident_bytes"] / sample["live_bytes"] for sample in run],
                  linewidth=1.2, color=each["colour"], label=each["name"])
    axes.set(xlabel="million operations", ylabel="resident / live", yscale="log")
    axes.axhline(1, color="black", linewidth=0.7)
    legend_above(axes)
    pictures.add("fragmentation", "Fragmentation over time",
                 "How many times the live bytes are resident; 1 is the least there can be.", drawing)


def draw_latency(results, pictures):
    drawing, axes = figure()
    keys = ["p50_ns", "p99_ns", "p999_ns", "max_ns"]
    shown = results["shown"]
    width = 0.8 / len(shown)
    for index, each in enumerate(shown):
        places = numpy.arange(len(keys)) + index * width
        means = [max(each[key]["mean"], 1) for key in keys]
        errors = [min(each[key]["half_width_95"], mean * 0.99) for key, mean in zip(keys, means)]
        axes.bar(places, means, width, color=each["colour"], label=each["name"],
                 yerr=errors, error_kw={"linewidth": 0.8})
    axes.set(yscale="log", ylabel="nanoseconds a call takes")
    axes.set_xticks(numpy.arange(len(keys)) + 0.4, ["p50", "p99", "p99.9", "max"])
    legend_above(axes)
    pictures.add("latency", "Latency percentiles",
                 "Times of single calls; means over the repeats with 95 % confidence intervals.",
                 drawing)


def draw_pareto(results, pictures):
    drawing, axes = figure()
    points = []
    for each in results["shown"]:
        if each["name"] == "ideal" or each["live_average_bytes"] <= 0:
            continue
        speed = each["operations_per_second_mean"]
        space = each["resident_average_bytes"] / each["live_average_bytes"]
        points.append((space, speed["mean"] / 1e6))
        axes.errorbar([space], [speed["mean"] / 1e6], yerr=[speed["half_width_95"] / 1e6],
                      marker="o", color=each["colour"], capsize=3)
        axes.annotate(each["name"], (space, speed["mean"] / 1e6), xytext=(6, 5),
                      textcoords="offset points", fontsize=9)
    front = [point for point in points
             if not any(other[0] <= point[0] and other[1] >= point[1] and other != point
                        for other in points)]
    axes.plot(*zip(*sorted(front)), color="#999999", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel="average resident memory / live bytes (less is better)",
             ylabel="million operations per second", ylim=(0, None))
    pictures.add("pareto", "Speed against space",
                 "On the dashed line are the allocators that no other beats in both.", drawing)


def draw_pauses(results, pictures):
    shown = [each for each in results["shown"] if each["compactions"]]
    if not shown:
        return
    drawing, (pauses, locked) = figure(5.5, nrows=2, sharex=True)
    for each in shown:
        rows = each["compactions"]
        for key, colour, name in [("wall_ns", "#c4c4c4", "wall clock"),
                                  ("cpu_ns", each["colour"], "thread CPU")]:
            pauses.plot(column(rows, "event", 1e6), column(rows, key, 1000), linestyle="none",
                        marker=".", markersize=3, color=colour, label=f"{each['name']}, {name}")
        for part, whole, style in [("locked_blocks", "blocks", "-"), ("locked_bytes", "bytes", ":")]:
            locked.plot(column(rows, "event", 1e6),
                        [100 * row[part] / row[whole] if row[whole] else 0 for row in rows],
                        linestyle=style, color=each["colour"], linewidth=1, label=f"{each['name']}, {whole}")
    pauses.set(ylabel="pause (\u00b5s)", ylim=(0, None))
    legend_above(pauses)
    locked.set(xlabel="million operations", ylabel="locked then (%)", ylim=(0, max(1, locked.get_ylim()[1])))
    legend_above(locked)
    pictures.add("pauses", "Compactions at idle points",
                 "How long each took, and what share of blocks and bytes was locked. The wall "
                 "clock counts the time other programs had the processor, too.", drawing)


# --- Pictures of the trace.

def binary_labels(axes, count):
    axes.set_xticks(range(0, count, 4),
                    ["0" if i == 0 else bytes_text(1 << (i - 1)).replace(".00", "")
                     for i in range(0, count, 4)], fontsize=8)


def draw_sizes(digest, pictures):
    drawing, axes = figure()
    last = max(i for i, count in enumerate(digest["size_blocks"]) if count) + 1
    places = numpy.arange(last)
    blocks = numpy.array(digest["size_blocks"][:last]) / max(1, sum(digest["size_blocks"]))
    sizes = numpy.array(digest["size_bytes"][:last]) / max(1, sum(digest["size_bytes"]))
    axes.bar(places - 0.2, 100 * blocks, 0.4, color=COLOURS[0], label="of all blocks")
    axes.bar(places + 0.2, 100 * sizes, 0.4, color=COLOURS[1], label="of all bytes")
    binary_labels(axes, last)
    axes.set(xlabel="size, from this up to its double", ylabel="share (%)")
    axes.legend(frameon=False)
    pictures.add("sizes", "Sizes of blocks", "Of all that was ever allocated.", drawing)


def draw_lifetimes(digest, pictures):
    drawing, (steps, shares) = figure(4.2, ncols=2)
    last = max(i for i, count in enumerate(digest["lifetime_blocks"]) if count) + 1
    steps.bar(range(last), digest["lifetime_blocks"][:last], color=COLOURS[0])
    steps.set(yscale="log", xlabel="lifetime in operations, below this, from half of it", ylabel="blocks")
    steps.set_xticks(range(0, last, 4), [f"{1 << i:,}" for i in range(0, last, 4)], fontsize=8)
    shares.bar(range(100), digest["lifetime_percent"], width=1, color=COLOURS[2])
    shares.set(yscale="log", xlabel="lifetime in percent of the run", ylabel="blocks")
    pictures.add("lifetimes", "Lifetimes of blocks",
                 f"{digest['never_freed']} blocks were never freed; they live to the end.", drawing)


def draw_locked(digest, pictures):
    points = numpy.array(digest["points"], dtype=float)
    if not digest["locks"] or not len(points):
        return
    drawing, axes = figure()
    for part, whole, name, colour in [(4, 2, "blocks", COLOURS[0]), (5, 3, "bytes", COLOURS[1])]:
        axes.plot(points[:, 0] / 1e6, 100 * points[:, part] / numpy.maximum(points[:, whole], 1),
                  label=f"of live {name}", color=colour, linewidth=1.2)
    axes.set(xlabel="million operations", ylabel="locked (%)", ylim=(0, None))
    axes.legend(frameon=False)
    pictures.add("locked", "Locked share over time", "By the locks in the trace.", drawing)


def sweep(steve, trace, pictures, quiet):
    """How much is locked, and how well that agrees with a hand's locks, over each parameter."""
    plans = [("coarse", "share", [1, 2, 5, 10, 20, 50, 80]),
             ("fine", "loss", [0.05, 0.1, 0.2, 0.5, 1, 2, 5]),
             ("burst", "gap", [3, 10, 30, 100, 300, 1000, 3000])]
    drawing, panels = figure(3.8, ncols=3, sharey=True)
    jobs = [(plan, value) for plan in plans for value in plan[2]]
    found = {}
    with tempfile.NamedTemporaryFile(suffix=".json") as output:
        for (method, parameter, _), value in tqdm(jobs, "sensitivity", disable=quiet):
            subprocess.run([steve, "infer", f"--method={method}", f"--{parameter}={value}",
                            f"--json={output.name}", trace], check=True, text=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            found[method, value] = json.loads(pathlib.Path(output.name).read_text())
    for axes, (method, parameter, values) in zip(panels, plans):
        rows = [found[method, value] for value in values]
        axes.plot(values, [100 * row["inferred"] / max(row["live"], 1) for row in rows], marker=".",
                  color="#555555", label="blocks locked")
        axes.plot(values, [100 * row["covered"] / max(row["accesses"], 1) for row in rows],
                  marker=".", color=COLOURS[4], label="accesses under a lock")
        if rows[0]["hand_locks"]:
            axes.plot(values, [100 * row["precision"] for row in rows], marker=".",
                      color=COLOURS[0], label="precision")
            axes.plot(values, [100 * row["recall"] for row in rows], marker=".",
                      color=COLOURS[1], label="recall")
        axes.set(title=method, xscale="log", xlabel=parameter)
    panels[0].set_ylabel("%")
    panels[0].legend(frameon=False, fontsize=8)
    pictures.add("sensitivity", "Sensitivity of the inferred locks",
                 "Each method over its parameter.", drawing)


# --- Pictures of the heap.

def read_maps(path):
    """The pictures in a map file: what was live, and arrays of page, live and locked bytes."""
    content = pathlib.Path(path).read_bytes()
    if content[:8] != b"STEVEMAP":
        raise ValueError(f"{path} is no file of heap maps")
    at, maps = 8, []
    record = numpy.dtype([("page", "<u8"), ("live", "<u4"), ("locked", "<u4")])
    while at + 40 <= len(content):
        operations, time_us, live, resident, count = struct.unpack_from("<5Q", content, at)
        at += 40
        pages = numpy.frombuffer(content, record, count, at)
        at += 16 * count
        maps.append({"operations": operations, "live": live, "resident": resident, "pages": pages})
    return maps


def lay_out(maps):
    """Places for all pages that are ever used, in the order of addresses; large gaps are left out."""
    every = [each["pages"]["page"] for each in maps if len(each["pages"])]
    return numpy.unique(numpy.concatenate(every)) if every else numpy.array([], dtype="<u8")


def shade(each, places):
    """Colours of the palette for every place."""
    shades = numpy.zeros(len(places), dtype=numpy.uint8)
    where = numpy.searchsorted(places, each["pages"]["page"])
    shades[where] = 1 + numpy.minimum(62, each["pages"]["live"] * 63 // 4096)
    shades[where[each["pages"]["locked"] > 0]] = 64
    return shades


def map_image(shades, scale):
    rows = -(-len(shades) // MAP_WIDTH)
    grid = numpy.zeros(rows * MAP_WIDTH, dtype=numpy.uint8)
    grid[:len(shades)] = shades
    image = Image.fromarray(grid.reshape(rows, MAP_WIDTH), mode="P")
    image.putpalette([value for colour in PALETTE for value in colour] + [0] * (3 * (256 - len(PALETTE))))
    return image.resize((MAP_WIDTH * scale, rows * scale), Image.NEAREST)


def thin(places, limit):
    """Of too many places every n-th, so that a picture stays a picture."""
    step = -(-len(places) // limit)
    return step, places[::step]


def heap_frames(maps):
    places = lay_out(maps)
    if not len(places):
        return []
    step, _ = thin(places, MAP_WIDTH * 256)
    rows = -(-(-(-len(places) // step)) // MAP_WIDTH)
    scale = max(1, min(5, 640 // max(rows, 1)))
    return [map_image(shade(each, places)[::step], scale) for each in maps]


def draw_raster(name, maps, pictures):
    places = lay_out(maps)
    if not len(places):
        return
    step, _ = thin(places, 1200)
    raster = numpy.stack([shade(each, places)[::step] for each in maps], axis=1)
    colours = numpy.array(PALETTE, dtype=float)[raster] / 255
    drawing, axes = figure()
    axes.imshow(colours, aspect="auto", origin="lower", interpolation="nearest",
                extent=(0, maps[-1]["operations"] / 1e6, 0, len(places) * 4096 / (1 << 20)))
    axes.set(xlabel="million operations", ylabel="addresses in use (MiB)")
    pictures.add(f"raster-{name}", f"Addresses over time: {name}",
                 "Each row is a page of the heap, gaps between used pages left out; each column a moment.",
                 drawing, legend=True)


def draw_heap(name, maps, pictures, video):
    frames = heap_frames(maps)
    if not frames:
        return
    fullest = max(range(len(maps)), key=lambda at: maps[at]["live"])
    stream = io.BytesIO()
    frames[fullest].save(stream, format="PNG")
    pictures.add_bytes(f"heap-{name}", f"Heap map at the peak: {name}",
                       "A square is a page, row by row in the order of addresses.",
                       stream.getvalue(), "png", legend=True)
    stream = io.BytesIO()
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:], duration=120, loop=0)
    pictures.add_bytes(f"animation-{name}", f"The heap over time: {name}",
                       f"{len(frames)} pictures from the start to the end of the run.",
                       stream.getvalue(), "gif", legend=True)
    if video:
        write_video(frames, video.with_name(f"{video.stem}-{name}{video.suffix}"))


def write_video(frames, path):
    if shutil.which("ffmpeg") is None:
        print("steve: no film: ffmpeg is not installed", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, frame in enumerate(frames):
            frame.convert("RGB").save(f"{folder}/{number:05}.png")
        subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-framerate", "8", "-i",
                        f"{folder}/%05d.png", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt",
                        "yuv420p", str(path)], check=True)


# --- The page.

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .25em .6em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f4f5f7 }
th { border-bottom: 2px solid #888 } img { max-width: 100% }
img.pixels { image-rendering: pixelated; border: 1px solid #ccc }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid #888; vertical-align: -.15em;
  margin: 0 .3em 0 1em }
.wide { overflow-x: auto } .failed { color: #b00020; font-weight: bold } p.note { color: #555 } h2 { margin-top: 2em }
</style></head><body>
<h1>{{ title }}</h1>
<p><code>{{ command }}</code></p>
<p class="note">{{ digest.operations }} operations: {{ digest.allocations }} allocations,
{{ digest.reallocations }} reallocations, {{ digest.frees }} frees; {{ digest.locks }} locks,
{{ digest.accesses }} accesses recorded. Idle point every {{ results.idle_every }} operations with
{{ results.budget_us }} &micro;s; rounds: {{ results.rounds }}.</p>
<div class="wide"><table id="figures"><tr>{% for name in header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row.cells %}<td{% if row.failed and not loop.first %}
 class="failed"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<p class="note">Times are those of single calls, means over the repeats; &plusmn; is half the width of the
95&nbsp;% confidence interval. Resident memory is what the process had beyond its state before the first
allocation; <em>over live</em> compares its average with the bytes the program had asked for. The longest
pause is that of the compactions at idle points, by the wall clock; the locked shares are averages over them.
The largest block is what could be had after the full compaction at the end without exceeding the peak.</p>
{% for section in sections %}<h2 id="{{ section.name }}">{{ section.title }}</h2>
<p class="note">{{ section.text }}</p>
{% if section.legend %}<p class="note">{% for colour, meaning in legend %}<span class="swatch"
 style="background: rgb{{ colour }}"></span>{{ meaning }}{% endfor %}</p>
{% endif %}<img{% if section.pixels %} class="pixels"{% endif %} alt="{{ section.title }}" src="data:image/{{ section.kind }};base64,{{ section.data }}">
{% endfor %}
<h2>Figures</h2>
<p><a download="results.json" href="data:application/json;base64,{{ json_data }}">Everything as JSON</a>
&middot; <a download="table.csv" href="data:text/csv;base64,{{ csv_data }}">the table as CSV</a></p>
</body></html>
"""

HEADER = ["allocator", "M operations/s", "p50", "p99", "p99.9", "max", "resident, average",
          "over live", "PSS, average", "peak", "at the end", "after full compaction", "largest block",
          "longest pause", "locked blocks", "locked bytes", "smallest heap"]


def locked_share(each, part, whole):
    rows = [row for row in each["compactions"] if row[whole]]
    return f"{100 * sum(row[part] / row[whole] for row in rows) / len(rows):.2f} %" if rows else "-"


def table_row(each):
    if each["failed"]:
        return {"failed": True, "cells": [each["name"], each["failure"]] + [""] * (len(HEADER) - 2)}
    live = each["live_average_bytes"]
    speed = each["operations_per_second_mean"]
    over = f"{100 * (each['resident_average_bytes'] / live - 1):+.1f} %" if live else "-"
    times = [f"{each[key]['mean']:.0f} ns" if each[key]["mean"] < 10000 else
             f"{each[key]['mean'] / 1000:.0f} \u00b5s" for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns")]
    pause = f"{each['pause_wall']['max_us']:.0f} \u00b5s" if each["pauses"] else "-"
    largest = bytes_text(each["largest_block_after_full_compaction_bytes"])
    smallest = bytes_text(each["smallest_heap_bytes"]) if "smallest_heap_bytes" in each else "-"
    return {"failed": False, "cells": [
        each["name"], f"{speed['mean'] / 1e6:.2f} \u00b1 {speed['half_width_95'] / 1e6:.2f}", *times,
        bytes_text(each["resident_average_bytes"]), over, bytes_text(each["share_average_bytes"]),
        bytes_text(each["resident_peak_bytes"]), bytes_text(each["resident_end_bytes"]),
        bytes_text(each["resident_after_full_compaction_bytes"]), largest, pause,
        locked_share(each, "locked_blocks", "blocks"), locked_share(each, "locked_bytes", "bytes"), smallest]}


def csv_text(rows):
    lines = [HEADER] + [row["cells"] for row in rows]
    return "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines)


def encode(text):
    return base64.b64encode(text.encode()).decode("ascii")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="steve report", description="One HTML page of a replay.")
    parser.add_argument("steve", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--trace", required=True, help="the trace that was replayed")
    parser.add_argument("--json", required=True, type=pathlib.Path, help="what replay --json wrote")
    parser.add_argument("--maps", help="what replay --maps was given")
    parser.add_argument("--sweep", nargs="?", const="", metavar="TRACE",
                        help="also infer locks with many parameters, from TRACE where the replayed one has no accesses")
    parser.add_argument("--pictures", type=pathlib.Path, help="folder for the pictures as files")
    parser.add_argument("--video", type=pathlib.Path, help="the animation as a film, by ffmpeg")
    parser.add_argument("--title")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser.parse_args()


def draw_everything(arguments, results, digest):
    pictures = Pictures(arguments.pictures)
    quiet = arguments.quiet or not sys.stderr.isatty()
    jobs = []
    if results["shown"]:
        jobs += [lambda draw=draw: draw(results, pictures) for draw in
                 (draw_memory, draw_share, draw_fragmentation, draw_latency, draw_pareto, draw_pauses)]
    if digest["allocations"]:
        jobs += [lambda draw=draw: draw(digest, pictures) for draw in
                 (draw_sizes, draw_lifetimes, draw_locked)]
    if arguments.sweep is not None:
        jobs.append(lambda: sweep(arguments.steve, arguments.sweep or arguments.trace, pictures, quiet))
    for each in results["shown"]:
        path = pathlib.Path(f"{arguments.maps}.{each['name']}") if arguments.maps else None
        if path is not None and path.exists():
            jobs.append(lambda path=path, name=each["name"]:
                        draw_raster(name, read_maps(path), pictures))
            jobs.append(lambda path=path, name=each["name"]:
                        draw_heap(name, read_maps(path), pictures, arguments.video))
    for job in tqdm(jobs, "pictures", disable=quiet):
        job()
    return pictures.sections


def main():
    arguments = parse_arguments()
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True})
    try:
        text = arguments.json.read_text()
        results = json.loads(text)
        digest = json.loads(subprocess.run([arguments.steve, "digest", arguments.trace], check=True,
                                           capture_output=True, text=True).stdout)
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
        results["shown"] = [each for each in results["allocators"] if not each["failed"]]
        for each, colour in zip(results["shown"], COLOURS * 2):
            each["colour"] = colour
        sections = draw_everything(arguments, results, digest)
    except subprocess.CalledProcessError as error:
        sys.exit((error.stderr or f"steve: {error}").strip())
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"steve: cannot make the report: {error}")
    rows = [table_row(each) for each in results["allocators"]]
    command = " ".join(results["command"])
    page = jinja2.Environment(autoescape=True).from_string(PAGE).render(
        title=arguments.title or f"Replay of {pathlib.Path(arguments.trace).name}", command=command,
        results=results, digest=digest, header=HEADER, legend=LEGEND, rows=rows, sections=sections,
        json_data=encode(text), csv_data=encode(csv_text(rows)))
    try:
        arguments.output.write_text(page, encoding="utf-8")
    except OSError as error:
        sys.exit(f"steve: cannot write {arguments.output}: {error.strerror}")


if __name__ == "__main__":
    main()
