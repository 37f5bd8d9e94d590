"""What this machine knows of a store, besides the store itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from xcat_avs.serve import journal, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import PackedSet
from xcat_avs.store import evidence

URL = "file:///srv/repo"


def entry(tag: str) -> JournalEntry:
    return JournalEntry("i.prod", "pack", "2026-01-02T03:04:05Z", "u", "r", "i.prod", tag, 2, "prod.v1", "", "")


def of_a_store(state: Path, entries: Sequence[JournalEntry], served: Sequence[Path]) -> str:
    return evidence.of_a_store(state, journal.mentions(entries), sets.mentions(served))


def test_notes(tmp_path: Path) -> None:
    assert evidence.noted(tmp_path) == {}
    evidence.note(tmp_path, URL, "1")
    evidence.note(tmp_path, "svn://other/r", "2")
    evidence.note(tmp_path, URL, "3")
    assert evidence.noted(tmp_path) == {URL: "3", "svn://other/r": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["stores.json"]
    evidence.note(tmp_path / "missing", URL, "1")  # nothing depends on it


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff"])
def test_a_damaged_note_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stores.json").write_text(text, encoding="latin-1")
    assert evidence.noted(tmp_path) == {}
    evidence.note(tmp_path, URL, "1")
    assert evidence.noted(tmp_path) == {URL: "1"}


def test_what_says_that_there_was_a_store(tmp_path: Path) -> None:
    state, served, empty = tmp_path / "state", tmp_path / "prod", tmp_path / "test"
    for directory in (state, served, empty):
        directory.mkdir()
    assert of_a_store(state, [], [served, empty]) == ""
    assert of_a_store(state, [entry("")], [served, empty]) == "", "a directory of before was served again"
    (state / "checkouts/i.prod").mkdir(parents=True)
    assert of_a_store(state, [], [served, empty]) == ""
    (state / "checkouts/i.prod/tree").mkdir()
    assert of_a_store(state, [], [empty]) == f"{state}/checkouts/i.prod/tree is a checkout"
    record = PackedSet("i.prod", "i.prod", "v1", 3, "2026-01-02T03:04:05Z", "alice", "rootimg.cpio.gz")
    (served / "avs.json").write_text(json.dumps(asdict(record)))
    assert of_a_store(state, [], [empty, served]).startswith(f"{served} serves tag v1 of i.prod and ")
    assert of_a_store(state, [entry(""), entry("v2")], []).startswith("the journal knows tag v2 of i.prod and ")
    evidence.note(state, URL, "1")
    text = f"{state}/stores.json names {URL} and the journal knows tag v2 of i.prod"
    assert of_a_store(state, [entry("v2")], [served]) == text
