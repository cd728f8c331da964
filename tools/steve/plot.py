#!/usr/bin/env python3
"""Draws the memory curves of a replay: steve-plot RESULTS.json PICTURE

PICTURE is written twice, as PNG and as SVG, whatever its own ending is.
"""

import json
import pathlib
import sys

try:
    import matplotlib
except ImportError:
    sys.exit("steve: the picture needs matplotlib (Debian: python3-matplotlib)")

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

LIVE = "#b8bec7"
# Blue and vermilion first: told apart by colour-blind readers and in print.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b",
           "#17becf", "#bcbd22", "#1f3b73", "#b05fc9", "#4d4d4d"] * 2
LEGEND_COLUMNS = 4
UNITS = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")]


def unit_for(largest):
    for size, name in UNITS:
        if largest >= size:
            return size, name
    return UNITS[-1]


def time_unit_for(largest_us):
    for size, name in [(60_000_000, "minutes"), (1_000_000, "seconds"), (1_000, "milliseconds")]:
        if largest_us >= 2 * size:
            return size, name
    return 1, "microseconds"


def shorten(words, limit=80):
    """The command without the folders of its files."""
    names = [word.rsplit("/", 1)[-1] if word.startswith("/") else word for word in words]
    text = " ".join(" ".join(names).split())
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def column(samples, key, unit=1):
    return [sample[key] / unit for sample in samples]


def draw_memory(axes, shown, unit, time_unit):
    """Resident memory of each allocator over the live bytes."""
    many = len(shown) + 1 > LEGEND_COLUMNS
    for allocator, colour in zip(shown, COLOURS):
        # The last sample is the one after the full compaction: a mark, not a part of the curve.
        run, final = allocator["samples"][:-1], allocator["samples"][-1]
        axes.plot(column(run, "time_us", time_unit), column(run, "resident_bytes", unit),
                  color=colour, linewidth=1.3, drawstyle="steps-post",
                  label=f"{allocator['name']}" if many else f"{allocator['name']}: resident")
        axes.plot([final["time_us"] / time_unit], [final["resident_bytes"] / unit], marker="o",
                  markersize=6, color=colour, markeredgecolor="white", clip_on=False, zorder=5,
                  linestyle="none",
                  label=None if many else f"{allocator['name']}: after {allocator['full_compaction']}")
    if many:
        axes.plot([], [], marker="o", linestyle="none", color="#777777", markeredgecolor="white",
                  label="dot: after all it can give back")
    first = shown[0]["samples"]
    axes.fill_between(column(first, "time_us", time_unit), column(first, "live_bytes", unit),
                      color=LIVE, linewidth=0, step="post", zorder=1,
                      label="live: bytes the program asked for")


def draw_waste(axes, shown, unit, time_unit):
    """What each allocator holds beyond the live bytes."""
    for allocator, colour in zip(shown, COLOURS):
        run = allocator["samples"][:-1]
        waste = [(sample["resident_bytes"] - sample["live_bytes"]) / unit for sample in run]
        axes.plot(column(run, "time_us", time_unit), waste, color=colour, linewidth=1.1,
                  drawstyle="steps-post")
    axes.axhline(0, color="black", linewidth=0.6)


def draw(results, picture):
    shown = [each for each in results["allocators"] if not each["failed"]]
    if not shown:
        sys.exit("steve: every allocator failed; there is nothing to draw")
    samples = [sample for each in shown for sample in each["samples"]]
    unit, unit_name = unit_for(max(max(s["resident_bytes"], s["live_bytes"]) for s in samples))
    time_unit, time_name = time_unit_for(max(s["time_us"] for s in samples))

    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "axes.spines.top": False,
                         "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
                         "grid.linewidth": 0.7, "axes.axisbelow": True})
    figure, (memory, waste) = plt.subplots(2, 1, sharex=True, figsize=(10, 7),
                                           gridspec_kw={"height_ratios": [3, 1.4]},
                                           constrained_layout=True)
    draw_memory(memory, shown, unit, time_unit)
    memory.set_ylabel(f"memory ({unit_name})")
    memory.set_ylim(bottom=0)
    # Above the axes, where it hides no curve; a column for each allocator, and one for the program.
    memory.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0,
                  ncol=min(len(shown) + 1, LEGEND_COLUMNS),
                  frameon=False, fontsize=9)
    figure.suptitle(shorten(results["command"]), x=0.01, ha="left", fontsize=12, fontweight="bold")

    draw_waste(waste, shown, unit, time_unit)
    waste.set_ylabel(f"resident \u2212 live\n({unit_name})")
    waste.set_xlabel(f"time in the recorded program ({time_name})")
    low, high = waste.get_ylim()
    waste.set_ylim(min(0, low), high)
    waste.set_xlim(left=0)
    for axes in (memory, waste):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if results["budget_us"]:
        note = (f"idle point every {results['idle_every']:,} operations, "
                f"{results['budget_us']:,} \u00b5s for compaction at each")
    else:
        note = "no compaction at idle points"
    figure.supxlabel(note, fontsize=8.5, color="#555555", x=0.99, ha="right")

    stem = pathlib.Path(picture)
    if stem.suffix.lower() in (".png", ".svg"):
        stem = stem.with_suffix("")
    for ending in (".png", ".svg"):
        figure.savefig(f"{stem}{ending}", dpi=130)


def main():
    if len(sys.argv) != 3:
        sys.exit("Usage: steve-plot RESULTS.json PICTURE")
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            results = json.load(file)
        draw(results, sys.argv[2])
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"steve: cannot draw {sys.argv[2]}: {error}")


if __name__ == "__main__":
    main()
