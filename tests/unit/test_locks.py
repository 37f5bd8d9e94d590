"""Locks: the second one is told who holds it; the kernel frees them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.system.locks import Holder, holder, locked

TOP = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from xcat_avs.system.locks import Holder, locked
with locked(Path(sys.argv[1]), "it is held by", Holder("first", 1, "here", "then")):
    print("held", flush=True)
    sys.stdin.read()
"""


def by(user: str) -> Holder:
    return Holder(user, 1, "here", "then")


def test_the_second_is_told_who_and_the_third_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "a/b/lock"
    with locked(path, "x is being built by", by("alice")):
        told = r"^x is being built by alice \(process 1 on here, since then\); wait until"
        with pytest.raises(AvsError, match=told), locked(path, "x is being built by", by("bob")):
            pytest.fail("held twice")
        with locked(tmp_path / "a/b/other", "y is being built by", by("bob")):
            pass
    with locked(path, "x is being built by", by("carol")):
        assert json.loads(path.read_text())["user"] == "carol"
    assert path.read_text() == ""


def test_an_error_within_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError, match="within"), locked(path, "x by", by("a long name of the first one")):
        raise RuntimeError("within")
    with locked(path, "x by", by("b")):
        assert json.loads(path.read_text())["user"] == "b"


def test_nobody_else_reads_or_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "locks/lock"
    with locked(path, "x by", by("a")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        descriptors = [name for name in os.listdir("/proc/self/fd") if _is(name, path)]
        assert len(descriptors) == 1
        assert not os.get_inheritable(int(descriptors[0])), "a child that lives on would go on holding it"


def _is(descriptor: str, path: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/self/fd/{descriptor}", path)
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_death_frees_it(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "lock"
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TOP) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AvsError, match="it is held by first"), locked(path, "it is held by", by("second")):
            pytest.fail("held twice")
        holder.send_signal(how)
        holder.wait(5)
        with locked(path, "it is held by", by("second")):
            pass


def test_odd_holders(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "x by", by("ü\udcff")):
        with pytest.raises(AvsError) as caught, locked(path, "x by", by("b")):
            pytest.fail("held twice")
        str(caught.value).encode("utf-8")


def test_a_place_that_cannot_be_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises((OSError, AvsError), match=str(tmp_path / "file")),
        locked(tmp_path / "file/lock", "x by", by("a")),
    ):
        pytest.fail("locked below a file")


def test_no_link_is_followed_and_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    """A note replaces what is in the file."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock", "it is held by", by("ann")):
        pytest.fail("a link was taken")
    assert (tmp_path / "file").read_text() == "mine"
    os.mkfifo(tmp_path / "pipe")
    assert holder(tmp_path / "lock") is holder(tmp_path / "pipe") is None
