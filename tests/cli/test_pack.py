"""pack and rollback: what is told where the journal cannot be written, and what is read how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.counted import counting, counts

from cli.conftest import PROD, Answer, Installation

pytestmark = pytest.mark.slow

READ = ("definitions.exlist.read", "settings.refuse_writable")


def told_all_the_same(answer: Answer, told: str, journal: Path) -> None:
    """The set first, and then, as the one error, what became of the journal."""
    assert answer.code == 1
    assert told in answer.out
    assert f"{PROD}: the journal {journal} cannot be written" in answer.error
    assert "served" in answer.error
    assert "this is a defect" not in answer.err


def test_a_journal_that_cannot_be_written_does_not_hide_what_is_served(built: Installation) -> None:
    place, journal = built.install / "netboot/debian12/x86_64/example.prod", built.top / f"state/journal/{PROD}.jsonl"
    assert built("-c", "tag", "example.prod", "-t", "v2").code == 0
    assert built("-c", "pack", "example.prod", "-t", "v1").code == 0
    journal.unlink()
    journal.mkdir()
    answer = built("-c", "pack", "example.prod", "-t", "v2")
    told_all_the_same(answer, f"Packed {PROD} tag v2\nServing {place}/rootimg.cpio.gz", journal)
    assert json.loads((place / "avs.json").read_text())["tag"] == "v2"
    answer = built("-c", "rollback", "example.prod")
    told_all_the_same(answer, "Serving example.prod.v1 again, packed", journal)
    assert json.loads((place / "avs.json").read_text())["tag"] == "v1"
    # What is stored, tagged and served is not to be packed once more.
    answer = built.create("-f")
    told_all_the_same(answer, "Tagged ", journal)
    assert f"Serving {place}/rootimg.cpio.gz" in answer.out
    assert "-c pack" not in answer.error
    journal.rmdir()
    assert built("-c", "rollback", "example.prod").code == 0
    assert [json.loads(line)["action"] for line in journal.read_text().splitlines()] == ["rollback"]


def test_lists_are_read_once_and_nothing_is_refused_twice(built: Installation, tmp_path: Path) -> None:
    exlist = built.put("install/custom/example.exlist", "./usr/share/doc*\n")
    with open(built.top / "images.stanza") as stream:
        text = stream.read()
    (built.top / "images.stanza").write_text(
        text.replace("    osarch=x86_64\n", f"    osarch=x86_64\n    exlist={exlist}\n")
    )
    answer = built("-c", "pack", "example.prod", "-t", "v1", env=counting(tmp_path / "first", *READ))
    assert answer.code == 0, answer.err
    assert counts(tmp_path / "first") == {"exlist.read": 1, "settings.refuse_writable": 1}
    again = built("-c", "pack", "example.prod", "-t", "v1", env=counting(tmp_path / "second", *READ))
    assert "already; nothing was done" in again.out
    assert counts(tmp_path / "second") == counts(tmp_path / "first")
