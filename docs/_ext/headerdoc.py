"""The directive `headerdoc`: a reference page made from a public header.

The header's own comments are the text, so page and header cannot differ. Understood is the form all
headers of Jeff have: a banner comment opens a section; a comment and the declarations below it, up to
the next blank line outside braces, are one entry; the first comment is the introduction. The comments
of a struct's members stay in its code.

    .. headerdoc:: include/jeff/jeff.h
"""

import pathlib
import re

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BANNER = re.compile(r"/\* -{20,}\n((?: \* .*\n)+?) \* -{20,} \*/")


def comment_lines(text):
    """The comment without its stars."""
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in text.split("\n")]
    lines[0] = lines[0].strip()
    while lines and not lines[-1]:
        lines.pop()
    return lines


def to_rst(lines):
    """Names in single quotes become literals, stars are escaped, lists get the blank line they need."""
    result = []
    in_item = False
    for line in lines:
        item = re.match(r"\s*- ", line)
        if item and not in_item:
            result.append("")
        in_item = bool(item) or (in_item and line.startswith("    "))
        parts = re.split(r"(`[^`]*`)", line.strip() if not in_item else line[2:])
        result.append("".join(
            f"`{part}`" if part.startswith("`") else re.sub(r"([*|_](?=\W|$)|\*)", r"\\\1", part)
            for part in parts))
    return result


def split_functions(code):
    """The signatures of the functions among the declarations, and the code that is left."""
    signatures = []

    def take(match):
        signatures.append(" ".join(match.group(1).split()))
        return ""

    code = re.sub(r"^#define (\w+\(.*?\))\s*\\\n(?:.*\\\n)*.*\n", r"\1\n", code, flags=re.M)
    code = re.sub(r"^(#.*|inline)\n", "", code, flags=re.M).replace("RM_INLINE ", "")
    code = re.sub(r"\s+RM_PRINTF_\(.*?\)", "", code)
    rest = re.sub(r"^RM_API\s+([^;{]*\));\n", take, code, flags=re.M)
    return signatures, rest.strip("\n")


def entry(text, code):
    signatures, rest = split_functions(code)
    lines = []
    for number, signature in enumerate(signatures):
        lines.append((".. c:function:: " if number == 0 else " " * 16) + signature)
    indent = "   " if signatures else ""
    lines += [""] + [indent + line for line in to_rst(comment_lines(text))]
    if rest:
        lines += ["", indent + ".. code-block:: c", ""]
        lines += [indent + "   " + line for line in rest.split("\n")]
    return lines + [""]


def entries(body):
    """(comment, code) for each paragraph of a section; the comment may be empty."""
    paragraph = ""
    for line in body.split("\n") + [""]:
        if line.strip() or paragraph.count("{") != paragraph.count("}"):
            paragraph += line + "\n"
            continue
        match = re.match(r"/\*((?:(?!\*/).)*)\*/\n(.*)", paragraph, re.S)
        text, code = match.groups() if match else ("", paragraph)
        if code.strip() and (text or not code.startswith(("#", "}"))):
            yield text, code
        paragraph = ""


def sections(header):
    """(title, rst lines) for each section of the header; the first, without a title, is the
    introduction."""
    parts = BANNER.split(header)
    first = re.match(r"/\*(.*?)\*/", parts[0], re.S)
    yield None, to_rst(comment_lines(first.group(1)))
    for title, body in zip(parts[1::2], parts[2::2]):
        lines = []
        for text, code in entries(body):
            lines += entry(text, code)
        yield " ".join(comment_lines(title)).strip(), lines


class HeaderDoc(Directive):
    required_arguments = 1

    def run(self):
        path = ROOT / self.arguments[0]
        self.state.document.settings.env.note_dependency(str(path))
        result = []
        for title, lines in sections(path.read_text()):
            if title is None:
                parent = nodes.container()
                result.append(parent)
            else:
                name = nodes.fully_normalize_name(title)
                parent = nodes.section(ids=[nodes.make_id(title)], names=[name])
                parent += nodes.title(title, title)
                self.state.document.note_implicit_target(parent, parent)
                result.append(parent)
            self.state.nested_parse(StringList(lines, source=str(path)), 0, parent)
        return result


def setup(app):
    app.add_directive("headerdoc", HeaderDoc)
    return {"version": "1", "parallel_read_safe": True}
