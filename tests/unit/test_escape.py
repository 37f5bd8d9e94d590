"""What others wrote reaches a terminal as one line that steers nothing, whichever way it takes."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import re
from pathlib import Path

import pytest

from xcat_avs import report
from xcat_avs.diff import differences, words
from xcat_avs.diff.words import Side
from xcat_avs.errors import AvsError
from xcat_avs.escape import printable, printable_lines
from xcat_avs.report import LEFT, Raw, Report, Table
from xcat_avs.system.progress import Progress
from xcat_avs.tree.manifest import Entry
from xcat_avs.tree.packages import Package, PackageChanges

TOP = Path(__file__).resolve().parents[2]
CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]
HIDDEN = "\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\U000e0041"
BYTES = [os.fsdecode(bytes([number])) for number in range(0x80, 0x100)]
HOSTILE = f"x\nFiles: 0 added{''.join(CONTROLS)}{HIDDEN}{''.join(BYTES)}\x1b[2Jy"
ENTRY = Entry("", "file", 0o644, 0, 0, 0, sha256="1")


def fit(text: str) -> bool:
    """Whether a terminal can take it: lines of what is printable."""
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("char", [*CONTROLS, *HIDDEN, *BYTES, "\ud800"])
def test_what_is_not_printable_is_shown(char: str) -> None:
    shown = printable(f"a{char}b")
    assert shown.isprintable()
    assert shown[0] + shown[-1] == "ab"
    assert shown[1] == "\\"
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["", "größe → 3", "日本　語", "a b", "Ελλάδα", "🙂", "back\\slash", "a\u00a0b"])
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_the_forms() -> None:
    assert printable("\n\t\r\x1b\x7f\x9b\u202e\udce9\U000e0041") == r"\n\t\r\x1b\x7f\u009b\u202e\xe9\U000e0041"
    assert printable_lines("a\tb\r\n\x1bc\n") == "a\tb\\r\n\\x1bc\n"


def test_no_value_makes_a_line_of_a_report() -> None:
    table = Table(("NAME", "VALUE"), [(HOSTILE, HOSTILE)], [LEFT, LEFT])
    text = report.to_text(Report([table, report.as_lines([HOSTILE, HOSTILE]), HOSTILE]))
    assert fit(text.replace("\t", ""))
    assert len(text.split("\n")) == 2 + 1 + 2 + 1 + len(HOSTILE.split("\n")) + 1


def test_a_raw_text_is_one_only_beside_a_terminal() -> None:
    said = Report([Raw(f"-{HOSTILE}\n+\tb")])
    assert report.to_text(said) == f"-{HOSTILE}\n+\tb\n"
    shown = report.to_text(said, report.Place(terminal=True))
    assert fit(shown.replace("\t", ""))
    assert shown.endswith("\n+\tb\n")


def test_a_document_is_ascii() -> None:
    text = report.to_json(Report([], {HOSTILE: HOSTILE}))
    assert text.isascii()
    assert fit(text)
    assert json.loads(text) == {HOSTILE: HOSTILE}


def test_errors_and_their_tails() -> None:
    text = str(AvsError(HOSTILE, [HOSTILE, "ordinary"], HOSTILE).prefixed(HOSTILE, HOSTILE))
    assert fit(text)
    assert len(text.split("\n")) == 4


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(terminal: bool, tmp_path: Path) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    progress = Progress(stream, verbose=True)
    (tmp_path / "log").write_bytes(b"\x1b[2J" + os.fsencode(HOSTILE))
    progress.begin(HOSTILE)
    progress.tick(tmp_path / "log")
    progress.warn(HOSTILE)
    progress.started([HOSTILE])
    progress.end()
    text = re.sub(r"\r*\x1b\[(?:J|2K|1A|\?25[hl])", "", stream.getvalue())  # of the status line
    assert fit(text)
    assert len(text.split("\n")) == (6 if terminal else 4), (
        "what is over stays on a terminal, and its status line was one"
    )


def test_differences() -> None:
    """Names, link targets, kernels, packages, attributes, inputs: whatever a commit may hold."""
    name = HOSTILE.replace("/", "")
    paths = [f"rootimg/{name}", f"rootimg/lib/modules/{name}", f"build_info/inputs/files/{name}"]
    old = {path: ENTRY._replace(path=path) for path in paths}
    new = {paths[0]: ENTRY._replace(path=paths[0], mode=0o4755), "rootimg/l": ENTRY._replace(type="link", link=name)}
    old["rootimg/l"] = new["rootimg/l"]._replace(link="/")
    package = Package(HOSTILE, 0, HOSTILE, HOSTILE, HOSTILE)
    side = Side(HOSTILE, 1, "2026-01-02T03:04:05Z", HOSTILE)
    found = differences.of_manifests(old, new)
    found = dataclasses.replace(found, attributes=differences.attributes({HOSTILE: HOSTILE}, {}))
    blocks = [
        words.heading(side, side), *words.all_blocks(found, side, side),
        *words.package_blocks(PackageChanges((package,), (), ((package, package),), ()), "rpm"),
        *words.file_blocks(found.files, 0, HOSTILE),
    ]  # fmt: skip
    text = report.to_text(Report(blocks))
    assert fit(text)
    assert not [line for line in text.split("\n") if line.startswith("Files: 0 added") and "removed" not in line]


def test_no_mode_joins_lines_by_itself() -> None:
    """report.as_lines does, so that no value makes two of one."""
    joins = []
    for path in [*TOP.glob("xcat_avs/modes/*.py"), TOP / "xcat_avs/diff/words.py"]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("'\\n'.join", "'\\n\\n'.join"):
                joins.append(path.name)
    assert joins == ["__init__.py", "env.py"]  # the usage, and what is Raw: a shell reads it
