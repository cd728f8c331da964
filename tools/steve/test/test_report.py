#!/usr/bin/env python3
"""Makes a report and looks at it, by itself and in a browser.

Usage: test_report.py STEVE
"""

import base64
import csv
import html.parser
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

STEVE = None
PYTHON = os.environ.get("STEVE_PYTHON", "/usr/bin/python3")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JEFF_")}
MODULES = "import matplotlib, numpy, jinja2, tqdm, PIL"
PICTURES = ["memory", "share", "fragmentation", "latency", "pareto", "pauses", "sizes", "lifetimes", "locked",
            "sensitivity", "raster-jeff", "heap-jeff", "animation-jeff", "raster-malloc",
            "heap-malloc", "animation-malloc"]


def run(*arguments, **options):
    return subprocess.run([STEVE, *map(str, arguments)], capture_output=True, text=True, timeout=240,
                          env={**ENVIRONMENT, "STEVE_PYTHON": PYTHON}, **options)


def program():
    """An ops file: rows made, read, partly freed, a table with locks."""
    lines = []
    for row in range(600):
        lines.append(f"{row} N {row * 9000} {40 + row * 13 % 5000}")
        lines.append(f"{row} S {row * 9000} 8")
        if row % 3 == 0 and row > 10:
            lines.append(f"{row - 10} L 0 0")
            lines += [f"{row - 10} L {(row - 10) * 9000 + i} 4" for i in range(0, 32, 4)]
            lines.append(f"{row - 10} U 0 0")
        if row % 2 == 1 and row > 20:
            lines.append(f"{row - 20} F 0 0")
    lines += [f"{row} L 0 0" for row in range(0, 600, 50)]
    return "\n".join(lines) + "\n"


class Sources(html.parser.HTMLParser):
    """What a page asks for: every source and link, and the text of its cells."""

    def __init__(self):
        super().__init__()
        self.images, self.links, self.cells, self.scripts = {}, [], [], 0
        self.in_cell = False
        self.heading = None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "h2":
            self.heading = attributes.get("id")
        elif tag == "img":
            self.images[self.heading] = attributes["src"]
        elif "src" in attributes or "href" in attributes:
            self.links.append(attributes.get("src") or attributes.get("href"))
        self.scripts += tag == "script"
        self.in_cell = tag in ("td", "th")

    def handle_data(self, data):
        if self.in_cell and data.strip():
            self.cells.append(data.strip())


@unittest.skipIf(subprocess.run([PYTHON, "-c", MODULES], capture_output=True).returncode != 0,
                 "matplotlib, numpy, jinja2, tqdm or PIL is not installed")
class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="steve-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        source, trace = cls.folder / "ops", cls.folder / "trace"
        source.write_text(program())
        cls.results = cls.folder / "results.json"
        cls.page = cls.folder / "page.html"
        for arguments in [
                ["import", "--from=ops", "-o", trace, source],
                ["replay", "-a", "jeff,malloc,ideal,/nonexistent/libgone.so", "--repeat=2",
                 "--idle-every=50", f"--maps={cls.folder / 'map'}", "--map-count=12",
                 f"--json={cls.results}", trace],
                ["report", "-o", cls.page, f"--trace={trace}", f"--json={cls.results}",
                 f"--maps={cls.folder / 'map'}", "--sweep", f"--pictures={cls.folder / 'pictures'}"]]:
            done = run(*arguments)
            # The library that is not there makes the replay's status 1, and a row of the table.
            if done.returncode != (arguments[0] == "replay"):
                raise AssertionError(done.stderr)
        cls.sources = Sources()
        cls.sources.feed(cls.page.read_text())

    def test_every_picture_is_in_the_page(self):
        self.assertEqual(sorted(self.sources.images), sorted(PICTURES))
        for name, source in self.sources.images.items():
            kind, content = re.fullmatch("data:image/(png|gif);base64,(.*)", source).groups()
            content = base64.b64decode(content)
            magic = b"GIF89a" if kind == "gif" else b"\x89PNG\r\n\x1a\n"
            self.assertEqual(content[:len(magic)], magic, name)
            self.assertEqual(kind == "gif", name.startswith("animation"))
            self.assertEqual((self.folder / "pictures" / f"{name}.{kind}").read_bytes(), content)

    def test_the_animation_moves(self):
        content = base64.b64decode(self.sources.images["animation-jeff"].split(",")[1])
        program = ("import io, sys; from PIL import Image; "
                   "print(Image.open(io.BytesIO(sys.stdin.buffer.read())).n_frames)")
        done = subprocess.run([PYTHON, "-c", program], input=content, capture_output=True, check=True)
        self.assertGreater(int(done.stdout), 5)

    def test_the_page_needs_nothing_else(self):
        self.assertTrue(all(link.startswith("data:") for link in self.sources.links))
        self.assertEqual(len(self.sources.links), 2)
        self.assertEqual(self.sources.scripts, 0)

    def test_the_figures_are_in_the_page_as_json_and_csv(self):
        contents = [base64.b64decode(link.split(",", 1)[1]).decode() for link in self.sources.links]
        self.assertEqual(json.loads(contents[0]), json.loads(self.results.read_text()))
        rows = list(csv.reader(io.StringIO(contents[1])))
        self.assertEqual([row[0] for row in rows],
                         ["allocator", "jeff", "malloc", "ideal", "libgone"])
        self.assertEqual({len(row) for row in rows}, {17})
        jeff = dict(zip(rows[0], rows[1]))
        for name in ("PSS, average", "after full compaction", "largest block"):
            self.assertRegex(jeff[name], r"^[0-9.]+ (bytes|[KMG]iB)$")
        self.assertRegex(jeff["locked blocks"], r"^[0-9.]+ %$")
        self.assertEqual(dict(zip(rows[0], rows[2]))["locked blocks"], "-")

    def test_the_sweep_may_take_its_accesses_from_another_trace(self):
        locked, page = self.folder / "without", self.folder / "swept.html"
        done = run("infer", "--no-accesses", "-o", locked, self.folder / "trace")
        self.assertEqual(done.returncode, 0, done.stderr)
        arguments = ["report", "-o", page, f"--trace={locked}", f"--json={self.results}"]
        self.assertEqual(run(*arguments, "--sweep").returncode, 1)
        done = run(*arguments, f"--sweep={self.folder / 'trace'}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('id="sensitivity"', page.read_text())

    def test_an_allocator_that_failed_is_shown_as_such(self):
        at = self.sources.cells.index("libgone")
        self.assertEqual(self.sources.cells[at + 1], "not there")

    def test_results_that_are_none_are_an_error(self):
        broken = self.folder / "broken.json"
        broken.write_text("{")
        done = run("report", "-o", self.page, f"--trace={self.folder / 'trace'}", f"--json={broken}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot make the report", done.stderr)
        done = run("report", "-o", self.page, "--trace=/nonexistent", f"--json={self.results}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent", done.stderr)
        self.assertEqual(run("report").returncode, 2)

    @unittest.skipUnless(shutil.which("ffmpeg"), "ffmpeg is not installed")
    def test_the_animation_is_written_as_a_film(self):
        film = self.folder / "film.mp4"
        done = run("report", "-o", self.folder / "other.html", f"--trace={self.folder / 'trace'}",
                   f"--json={self.results}", f"--maps={self.folder / 'map'}", f"--video={film}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "film-jeff.mp4").read_bytes()[4:8], b"ftyp")

    @unittest.skipUnless(shutil.which("chromium"), "chromium is not installed")
    def test_a_browser_without_a_network_shows_every_picture(self):
        # A script, in a copy, that tells how large the browser finds each picture.
        page = self.folder / "looked-at.html"
        page.write_text(self.page.read_text().replace("</body>", """<script>
            addEventListener("load", () => { document.title = "seen " +
                [...document.images].map(i => i.naturalWidth + "x" + i.naturalHeight).join(" "); });
            </script></body>"""))
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={self.folder / 'browser'}", "--host-resolver-rules=MAP * ~NOTFOUND",
             "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120,
            env={**ENVIRONMENT, "HOME": str(self.folder)})
        seen = re.search("<title>seen ([0-9x ]*)</title>", done.stdout)
        self.assertIsNotNone(seen, done.stderr[-2000:])
        sizes = [tuple(map(int, size.split("x"))) for size in seen.group(1).split()]
        self.assertEqual(len(sizes), len(PICTURES))
        for width, height in sizes:
            self.assertGreater(width, 100)
            self.assertGreater(height, 0)


class Digest(unittest.TestCase):
    def test_histograms_count_what_a_model_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "ops").write_text(program())
            self.assertEqual(run("import", "--from=ops", "-o", folder / "trace",
                                 folder / "ops").returncode, 0)
            found = json.loads(run("digest", "--points=50", folder / "trace").stdout)
        sizes, lifetimes, born, clock, percents = [0] * 64, [0] * 64, {}, 0, [0] * 100
        operations = sum(line.split()[1] in "NF" for line in program().splitlines())
        for line in program().splitlines():
            row, operation, _, size = line.split()
            if operation == "N":
                born[row] = clock
                sizes[int(size).bit_length()] += 1
            elif operation == "F":
                lifetime = clock - born.pop(row)
                lifetimes[lifetime.bit_length()] += 1
                percents[int(lifetime / operations * 100)] += 1
            clock += operation in "NF"
        for start in born.values():
            lifetimes[(clock - start).bit_length()] += 1
            percents[min(99, int((clock - start) / operations * 100))] += 1
        self.assertEqual(found["size_blocks"], sizes)
        self.assertEqual(found["lifetime_blocks"], lifetimes)
        self.assertEqual(found["lifetime_percent"], percents)
        self.assertEqual(found["never_freed"], len(born))
        self.assertEqual(found["operations"], operations)
        self.assertEqual(len(found["points"]), operations // (operations // 50 + 1))


if __name__ == "__main__":
    STEVE = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
