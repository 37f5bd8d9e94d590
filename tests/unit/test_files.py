"""Files that take the place of others: whole or not at all, and on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcat_avs.system import files


def test_a_file_is_replaced_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    path = tmp_path / "größe"
    path.write_text("old")
    files.write_atomic(path, "nü")
    files.write_atomic(path, b"\xff", mode=0o600)
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["größe"]
    assert [name.startswith(f"{tmp_path}/.größe.") for name in done] == [True, False] * 2
    assert done[1] == str(tmp_path)


def test_what_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["x"])


def test_what_a_killed_run_left_is_gone_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / ".x.new").symlink_to("elsewhere")
    (tmp_path / "x").symlink_to("elsewhere")
    with files.replacing(tmp_path / "x") as new:
        new.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert (tmp_path / "x").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "x"]
