"""What a lock says of its holder, to the one who comes second and to who only looks."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import threading
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.request import completed
from xcat_avs.system.locks import Busy, Holder, holder, locked
from xcat_avs.system.progress import Progress

ANN = Holder("ann", 7, "here", "2026-11-26T01:02:03Z")


def test_what_the_holder_is_at(tmp_path: Path) -> None:
    path, progress = tmp_path / "lock", Progress(io.StringIO())
    with locked(path, "x is being built by", ANN) as tell, progress.told(tell):
        progress.begin("a long name of a step, longer than the next", "step 1 of 2")
        progress.begin("cleanup", "step 2 of 2")
        found = holder(path)
        assert found is not None
        assert (found.user, found.pid, found.doing) == ("ann", 7, "cleanup (step 2 of 2)")
        said = r"^x is being built by ann \(process 7 on here, since 2026-11-26T01:02:03Z\), now at cleanup \(step 2 of 2\), since \S+Z; wait until it is done$"
        with pytest.raises(Busy, match=said), locked(path, "x is being built by", ANN):
            pytest.fail("held twice")
    progress.begin("afterwards")
    assert holder(path) is None
    assert path.read_text() == ""


def test_a_holder_on_another_host(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locked(path, "x by", Holder("ann", 7, "there", "then")),
        pytest.raises(Busy, match=r"another machine than this one.* NFS 4 .*90 s.* NFS 3"),
        locked(path, "x by", ANN),
    ):
        pytest.fail("held twice")


def test_nobody_holds_what_is_left_of_one_who_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    path.write_text(json.dumps({"user": "dead", "pid": 1, "host": "here", "since": "then"}))
    assert holder(path) is None
    with locked(path, "x by", ANN):
        assert holder(path) == ANN


@pytest.mark.parametrize("text", ["", "rubbish", '{"user": 1}', "[]"])
def test_a_note_that_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    with locked(path, "x by", ANN):
        path.write_text(text)
        found = holder(path)
        assert found is not None
        assert found.user == "somebody"
        with pytest.raises(Busy, match="x by another process; wait until"), locked(path, "x by", ANN):
            pytest.fail("held twice")


def test_who_looks_does_not_keep_others_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with open(path, encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        free = threading.Timer(0.03, stream.close)
        free.start()
        with locked(path, "x by", ANN):
            assert holder(path) == ANN
        free.join()


def test_a_passing_lock_is_gone_afterwards_and_locks_all_the_same(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "lock", [0], [0]

    def work() -> None:
        for _ in range(200):
            try:
                with locked(path, "x by", ANN, passing=True):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except Busy:
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    said = f"cannot lock {tmp_path}/lock: No locks available; its file system has to keep locks"
    with pytest.raises(AvsError, match=said) as caught, locked(tmp_path / "lock", "x by", ANN):
        pytest.fail("locked")
    assert not isinstance(caught.value, Busy), "nobody is said to hold it"
    assert holder(tmp_path / "lock") is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["-c", "tag", "x", "--sign"], ["-c", "tag", "x", "--sign=default"]),
        (["--sign", "-t", "v1"], ["--sign=default", "-t", "v1"]),
        (["--sign", "KEY", "x"], ["--sign", "KEY", "x"]),
        (["--sign=KEY"], ["--sign=KEY"]),
        (["-t", "v1"], ["-t", "v1"]),
    ],
)
def test_an_option_without_its_value(given: list[str], wanted: list[str]) -> None:
    assert completed(given) == wanted
