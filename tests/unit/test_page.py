"""The page of a version: whatever its parts are called it is the same page, and it asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pages
import pytest

from xcat_avs.errors import AvsError
from xcat_avs.page import charts, page, parts, place, sections

HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&lt; --> ]]> \u202e\x1b[31m\udce9\n<b>"


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and the texts in each kind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._inside, []).append(data)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its five megabytes of plotly."""
    monkeypatch.setattr(charts, "library", lambda: "var Plotly;")


@pytest.mark.usefixtures("library")
def test_a_hostile_name_changes_nothing_but_texts() -> None:
    pytest.importorskip("plotly")
    plain, hostile = Structure(pages.html("x", 5)), Structure(pages.html(HOSTILE, 5))
    assert hostile.elements == plain.elements
    assert "\\u202e\\x1b[31m\\xe9\\n<b>" in "".join(hostile.texts["h1"])
    figures = [json.loads(text) for text in hostile.texts["script"] if text.startswith("{")]
    assert len(figures) == 3
    labels = [label for figure in figures for trace in figure["data"] for label in trace.get("labels", [])]
    # plotly takes some HTML for what it is, so there it is escaped once more.
    assert not any("<" in label for label in labels)
    assert any("&lt;script&gt;alert(1)" in label for label in labels)
    assert pages.html(HOSTILE, 5).encode("utf-8")


@pytest.mark.usefixtures("library")
def test_a_browser_runs_the_scripts_of_the_page_and_no_other() -> None:
    pytest.importorskip("plotly")
    text = pages.html("x", 5)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy.group(1)
    run = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    sums = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in run]
    assert re.findall(r"'sha256-([^']*)'", policy.group(1)) == sums
    assert len(sums) == 2
    # Nothing in it is from elsewhere.
    assert re.findall(r'(?:src|href|action)="', text) == []
    assert "url(" not in text
    assert "@import" not in text


def test_packages_of_one_name_are_fields_of_their_own() -> None:
    """Two kernels, or a library for two architectures: plotly draws nothing at all where two ids are the same."""
    pytest.importorskip("plotly")
    trace = charts.packages([("kernel", 60), ("kernel", 50), ("all packages", 40)]).to_dict()["data"][0]
    assert list(trace["ids"]) == ["0", "1", "2", "3"]
    assert list(trace["parents"]) == ["", "0", "0", "0"]
    assert list(trace["values"]) == [150, 60, 50, 40]


def test_a_page_without_charts_is_an_error_that_says_how_to_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(AvsError, match=r"`/\S+ -m pip install plotly` brings it"):
        charts.need()


def test_what_is_not_known_is_said() -> None:
    survey = {
        "bytes": 0,
        "sizes": {},
        "problem": "rpm is not installed",
        "packages": [],
        "privileges": [],
        "previous": {},
        "revisions": [],
    }
    data = {"survey": survey, "nodes": [], "inputs": []}
    text = "".join(part(data) for part in page.PARTS)
    for words in (
        "No osimage serves this version now.", "There is no tag before this version.", "This version has no manifest",
        "rpm is not installed", "No file has any.", "No report is stored.",
    ):  # fmt: skip
        assert words in text
    assert "Boot" not in text
    assert "<td class=n>118s</td>" in sections.boot(pages.data())


def test_parts() -> None:
    assert parts.change(1 << 20, 3 << 20).text == "+2M"
    assert parts.change(3 << 20, 1 << 20).text == "-2M"
    assert parts.change(5, 5).text == "0"
    assert parts.table(("A", "B"), [("<", parts.Number("1"))]) == (
        '<div class="wide"><table><thead><tr><th scope="col">A</th><th scope="col" class=n>B</th></tr></thead>'
        "<tbody><tr><td>&lt;</td><td class=n>1</td></tr></tbody></table></div>"
    )
    assert parts.lines("a\tb\n\x1b[1m") == "<pre>a\tb\n\\x1b[1m</pre>"


def test_a_page_is_written_whole_and_only_over_a_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    text = f'<!DOCTYPE html>\n{place.GENERATOR}">é'
    assert place.write(path, text) == len(text.encode())
    assert path.stat().st_mode & 0o777 == 0o600, "what is in it is root's"
    path.chmod(0o644)
    place.write(path, text + "2")
    assert path.read_text(encoding="utf-8") == text + "2"
    assert path.stat().st_mode & 0o777 == 0o644, "whoever has published it wants that"
    (tmp_path / "mine").write_text("a letter", encoding="utf-8")
    os.symlink(path, tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    for name, words in (
        ("mine", "is no page of avsimage; it was left as it is"), ("link", "no plain file"), ("fifo", "no plain file"),
        ("none/page", "there is no directory"), (".", "is a directory"),
    ):  # fmt: skip
        with pytest.raises(AvsError, match=words):
            place.refuse(tmp_path / name)
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "a letter"
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link", "mine", "page.html"]
