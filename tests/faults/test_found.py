"""What the fault run has found, each by itself."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

import pytest
from harness import mounts_below
from integration.conftest import _can_build  # noqa: F401

from faults.kinds import Disk
from xcat_avs.errors import AvsError, CommandError, Interrupted
from xcat_avs.pack import members
from xcat_avs.pack.archive import Form
from xcat_avs.store.fsvs.subversion import Subversion
from xcat_avs.system.runner import Runner, capture

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


def test_a_compressor_that_does_not_say_why(disk: Disk, tmp_path: Path) -> None:
    disk.fill(8192, inodes=False)
    target = disk.point / "archive"
    mute = ["sh", "-c", "cat 2>/dev/null || exit 252"]
    with pytest.raises(CommandError, match=f"sh failed with exit code 252: the disk of {target} is full"):
        Runner(tmp_path / "log").pipe([["head", "-c", "100000", "/dev/zero"], mute], stdout=target)
    disk.empty()
    with pytest.raises(CommandError) as caught:
        Runner(tmp_path / "log").pipe([["true"], ["sh", "-c", "exit 252"]], stdout=target)
    assert caught.value.text == "sh failed with exit code 252"


class Late(Runner):
    """A signal comes when the program has just ended."""

    def run(self, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
            check: bool = True) -> int:  # fmt: skip
        super().run(argv, env=env, cwd=cwd, check=check)
        raise Interrupted(signal.SIGTERM)


def test_a_signal_as_soon_as_an_archive_is_mounted(tmp_path: Path) -> None:
    """It was taken for an error of the file system, for what was mounted was about to be removed."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    archive = tmp_path / "rootimg.sfs"
    subprocess.run(
        ["mksquashfs", str(tmp_path / "root"), str(archive), "-quiet"], check=True, stdout=subprocess.DEVNULL
    )
    with pytest.raises(Interrupted):
        members.read(archive, Form("squashfs", "gzip"), Late(tmp_path / "work/log"))
    assert mounts_below(tmp_path) == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["log"]


def test_a_client_that_is_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing itself, as when memory is short."""
    (tmp_path / "svn").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "svn").chmod(0o755)
    subprocess.run(["svnadmin", "create", str(tmp_path / "repo")], check=True)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(AvsError, match="cannot be used") as caught:
        Subversion(f"file://{tmp_path}/repo", tmp_path)._svn(["svn", "info", f"file://{tmp_path}/repo"])
    assert caught.value.tail == ("svn was killed by SIGKILL",)


def test_a_process_that_is_killed_before_it_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    import sh

    def killed(*_args: object, **_named: object) -> None:
        raise ValueError("not enough values to unpack (expected 2, got 1)")

    monkeypatch.setattr(sh.Command, "__call__", killed)
    with pytest.raises(CommandError, match="true was killed as it was started"):
        capture(["true"])
