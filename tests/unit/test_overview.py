"""What the overview of all osimages is made of: locks that are held, sizes on disk, journals, definitions, wide answers."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xcat_avs import report
from xcat_avs.definitions.osimage import OsImage, stored_images
from xcat_avs.report import LEFT, RIGHT, Report
from xcat_avs.serve import journal, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.store.fsvs import answers
from xcat_avs.store.protocol import Summary
from xcat_avs.system import disk
from xcat_avs.system.runner import QUIET


def test_sizes_on_disk(tmp_path: Path) -> None:
    for name, size in {"a/one": 1 << 20, "a/sub/two": 1 << 20, "b": 4096}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    os.link(tmp_path / "a/one", tmp_path / "a/again")
    groups = {"a": [tmp_path / "a", tmp_path / "none"], "b": [tmp_path / "b"], "c": [tmp_path / "a/sub"], "d": []}
    found = disk.used(QUIET, groups)
    assert 2 << 20 <= found["a"] < (2 << 20) + 65536
    assert (found["b"], found["d"]) == (0, 0), "a file is no directory of an osimage"
    assert disk.used(QUIET, {}) == {}


def test_until_when_something_was_served() -> None:
    def entry(osimage: str, date: str) -> JournalEntry:
        return JournalEntry(
            osimage=osimage, action="pack", date=date, user="u", real="", source=osimage, tag="v1", revision=1,
            directory="p.v1", before="", message="",
        )  # fmt: skip

    entries = [entry("a", "1"), entry("b", "2"), entry("a", "3"), entry("a", "4")]
    assert [(item.date, until) for item, until in journal.periods(entries)] == [
        ("1", "3"), ("2", ""), ("3", "4"), ("4", ""),
    ]  # fmt: skip
    assert journal.periods([]) == []


def image(name: str, **attributes: str) -> OsImage:
    return OsImage(name, attributes)


def test_which_osimages_are_stored() -> None:
    images = [
        image("debian12-x86_64-statelite-compute"), image("debian12-x86_64-netboot-compute"),
        image("debian12-x86_64-install-compute"), image("debian12-x86_64-statelite-alone"), image("nameless"),
    ]  # fmt: skip
    assert [found.name for found in stored_images(images)] == [
        "debian12-x86_64-netboot-compute", "debian12-x86_64-statelite-alone",
    ]  # fmt: skip


def test_directories_that_were_served(tmp_path: Path) -> None:
    place = tmp_path / "example.prod"
    for name in ("example.prod@v1", "example.prod.moved.aside.on.2026-01-01", "example.prod.other"):
        (tmp_path / name).mkdir()
    place.symlink_to("example.prod@v1")
    assert [path.name for path in sets.directories(place, "x")] == [
        "example.prod.moved.aside.on.2026-01-01", "example.prod@v1",
    ]  # fmt: skip


def entries(*items: tuple[str, str, int]) -> list[ElementTree.Element]:
    text = "".join(
        f'<entry kind="{kind}"><name>{name}</name><commit revision="{number}"><date>D{number}</date></commit></entry>'
        for name, kind, number in items
    )
    return list(ElementTree.fromstring(f"<list>{text}</list>"))


def test_what_a_store_has_of_an_image() -> None:
    top = entries(("tags", "dir", 9), ("trunk", "dir", 7))
    tags = entries(("v2", "dir", 9), ("v10", "dir", 8), ("notes", "file", 12))
    facts = {"bytes": 5, "packages": None, "osimage": "x"}
    assert answers.summarized(top, tags, facts) == Summary(revision=7, date="D7", bytes=5, tags=2, newest="v2")
    assert answers.summarized([], [], {}) == Summary()


def test_wide_answers() -> None:
    rows = [("file", "10", "/a\nb"), ("dir", "0", "/")]
    assert report.columns(("TYPE", "SIZE", "PATH"), rows, [LEFT, RIGHT, LEFT]) == (
        "TYPE  SIZE  PATH\nfile    10  /a\\nb\ndir      0  /"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_data_goes_out_as_it_is_but_on_a_terminal(terminal: bool) -> None:
    data = b"a\x1b[31m\tb\n\xff"
    found = report.to_output(Report(["not this"], data=data), terminal)
    assert found == ("a\\x1b[31m\tb\n\\xff" if terminal else data)
    assert report.to_output(Report(["text"]), terminal) == "text\n"
