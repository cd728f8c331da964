"""Sphinx configuration: the themes and extensions that come with Sphinx, and one of our own."""

import pathlib
import re
import sys

DOCS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

project = "Jeff"
author = "The Jeff authors"
copyright = "2026, The Jeff authors"
release = re.search(r"version: '([0-9.]+)'", (DOCS.parent / "meson.build").read_text()).group(1)
version = ".".join(release.split(".")[:2])

extensions = ["headerdoc"]
exclude_patterns = ["_ext", "examples", "man"]
primary_domain = "c"
highlight_language = "c"
html_theme = "alabaster"
html_theme_options = {
    "description": "A compacting allocator for C",
    "fixed_sidebar": True,
    "page_width": "1080px",
}
html_copy_source = False
