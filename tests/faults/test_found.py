"""What the fault run has found, each by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.conftest import _can_build  # noqa: F401

from faults.kinds import Disk
from xcat_avs.errors import CommandError
from xcat_avs.system.runner import capture

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A small file system for temporary files."""
    made = Disk(tmp_path / "disk")
    monkeypatch.setattr(tempfile, "tempdir", str(made.point))
    yield made
    made.close()


def test_what_a_program_says_is_not_lost_on_a_full_disk(disk: Disk) -> None:
    """Many programs end well all the same, and half an answer would be taken for the whole."""
    disk.fill(8192, inodes=False)
    script = "for n in $(seq 4000); do echo 'a line of an answer' 2>/dev/null; done; exit 0"
    with pytest.raises(CommandError, match=f"what sh said is lost: the disk of {disk.point} is full"):
        capture(["sh", "-c", script])
    disk.empty()
    assert len(capture(["sh", "-c", script]).text.splitlines()) == 4000
