"""The journal: whole lines, read again in their order, whatever became of the file."""

from __future__ import annotations

import json
import resource
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from xcat_avs.serve import journal
from xcat_avs.serve.journal import JournalEntry


def entry(number: int = 1, message: str = "because") -> JournalEntry:
    return JournalEntry(
        "image", "pack", "2026-01-02T03:04:05Z", "user", "uid 0 on here", "image", f"v{number}", number, f"p.v{number}",
        f"p.v{number - 1}", message,
    )  # fmt: skip


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert list(journal.read(tmp_path / "journal/image.jsonl")) == []


def test_entries_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "journal/image.jsonl"
    written = [entry(number, f"two\nlines, ünïcode and 'quotes' {number}") for number in range(5)]
    for item in written:
        journal.append(path, item)
    assert list(journal.read(path)) == written
    assert path.read_text().count("\n") == 5


def test_it_is_for_root_only(tmp_path: Path) -> None:
    path = tmp_path / "journal/image.jsonl"
    journal.append(path, entry())
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_line_that_was_cut_off_is_left_out_and_spoils_none_after_it(tmp_path: Path) -> None:
    path = tmp_path / "image.jsonl"
    journal.append(path, entry(1))
    with open(path, "a") as stream:
        stream.write(json.dumps(asdict(entry(2)))[:40])
    journal.append(path, entry(3))
    assert [item.revision for item in journal.read(path)] == [1, 3]


def test_a_disk_that_takes_only_a_part_of_a_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "image.jsonl"
    journal.append(path, entry(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append(path, entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.append(path, entry(3))
    assert [item.revision for item in journal.read(path)] == [1, 3]


def test_lines_that_are_no_entries_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "image.jsonl"
    journal.append(path, entry(1))
    newer = json.dumps({**asdict(entry(2)), "a field of a later version": 1})
    path.write_bytes(path.read_bytes() + b'\n[]\n1\nnull\n"x"\n\xff\xfe\n{}\n' + newer.encode() + b"\n")
    journal.append(path, entry(3))
    found = [item.revision for item in journal.read(path)]
    assert found[0] == 1
    assert found[-1] == 3


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "image.jsonl"

    def write(top: int) -> None:
        for number in range(top, top + 20):
            journal.append(path, entry(number, "x" * 3000))

    threads = [threading.Thread(target=write, args=(top,)) for top in range(0, 80, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.revision for item in journal.read(path)) == list(range(80))
