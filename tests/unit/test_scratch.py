"""Directories for one use: each run has its own, and what a killed one left goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xcat_avs.system.scratch import own_directory, sweep

TOP = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from xcat_avs.system.scratch import own_directory
with own_directory(Path(sys.argv[1]), "own.") as directory:
    (directory / "deep/er").mkdir(parents=True)
    print(directory, flush=True)
    sys.stdin.read()
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_each_has_its_own_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    parent = tmp_path / "made/here"
    with own_directory(parent, "own.") as one, own_directory(parent, "own.") as other:
        assert one != other
        assert one.stat().st_mode & 0o777 == 0o700
        (one / "file").write_text("x")
        sweep(parent, "own.")
        assert (one / "file").exists()
    assert names(parent) == []
    with own_directory(parent, "own.") as one:
        one.rename(parent / "kept")
    assert names(parent) == ["kept"]


def test_what_a_killed_run_left_goes_and_nothing_else(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    theirs = Path(run.stdout.readline().strip())
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (tmp_path / "own.link").symlink_to(outside)
    (tmp_path / "own.file").touch()
    with own_directory(tmp_path, "own."):
        assert theirs.is_dir()
    assert names(tmp_path) == sorted([theirs.name, "outside"])
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert theirs.is_dir()
    sweep(tmp_path, "other.")
    assert theirs.is_dir()
    sweep(tmp_path, "own.")
    assert names(tmp_path) == ["outside"]
    assert names(outside) == ["precious"]
    sweep(tmp_path / "missing", "own.")


def test_many_at_once(tmp_path: Path) -> None:
    def one(_: int) -> str:
        with own_directory(tmp_path, "own.") as directory:
            (directory / "file").write_text("x")
            return directory.name

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(200)))) == 200
    assert names(tmp_path) == []
