"""Down a tree by descriptors: no link is followed, whoever makes one meanwhile, and depth costs nothing."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unit.test_manifest import deep
from xcat_avs.errors import AvsError
from xcat_avs.system import descent, libc, mounts
from xcat_avs.system.descent import Descent
from xcat_avs.tree import manifest, restore, scan

LEVELS = 1500


@pytest.fixture(params=["openat2", "part by part"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's own way, and without."""

    def unknown(*_: object) -> int:
        raise OSError(errno.ENOSYS, "no such system call")

    if request.param == "part by part":
        monkeypatch.setattr(libc, "openat2", unknown)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A tree with links to a directory of the machine beside it."""
    (tmp_path / "host/below").mkdir(parents=True)
    (tmp_path / "host/below/secret").write_text("secret")
    top = tmp_path / "top"
    (top / "d/e").mkdir(parents=True)
    (top / "d/e/file").write_text("file")
    (top / "out").symlink_to(tmp_path / "host")
    (top / "d/up").symlink_to("../../host")
    (top / "d/secret").symlink_to(tmp_path / "host/below/secret")
    (top / "again").symlink_to("d")
    os.mkfifo(top / "fifo")
    return top


OUTSIDE = ["out/below/secret", "d/up/below/secret", "../host/below/secret", "d/../../host/below/secret", "again/e/file",
           "./d/e/file", "d//e/file", "/etc/passwd", "d/e/", "d/e/..", ".."]  # fmt: skip


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("keep", [1, 2, descent.KEEP])
def test_no_way_leads_out(hostile: Path, keep: int) -> None:
    for path in OUTSIDE:
        with Descent(str(hostile), keep) as tree, pytest.raises(OSError, match=r"out of its tree|Not a dir|Too many"):
            tree.parent(path)
    with Descent(str(hostile), keep) as tree:
        directory, name = tree.parent("d/e/file")
        assert (sorted(os.listdir(directory)), name) == (["file"], "file")
        with pytest.raises(NotADirectoryError, match="top/out/below"):
            tree.directory("out/below")
        assert Path(tree.name("d/e/file")).read_text() == "file", "it goes on after an error"
    with pytest.raises(NotADirectoryError):
        Descent(str(hostile / "again"))


def test_only_a_regular_file_is_read(hostile: Path) -> None:
    """And nothing waits for the other end of a FIFO."""
    assert descent.read_file(str(hostile), "d/e/file") == b"file"
    for path in ("fifo", "d/secret", "d/e", "none", *OUTSIDE):
        assert descent.read_file(str(hostile), path) is None, path
    # A device is not even opened, which some act on; here that would be "No such device".
    os.mknod(hostile / "none such", stat.S_IFCHR | 0o600, os.makedev(4095, 7))
    with pytest.raises(OSError, match="not a regular file"):
        descent.open_file(str(hostile), "none such")
    with pytest.raises(OSError, match="not a regular file"):
        restore.copy_content(str(hostile / "none such"), str(hostile / "copy"))
    with pytest.raises(OSError, match=r"regular file|Too many"):
        restore.copy_content(str(hostile / "d/secret"), str(hostile / "copy"))


def test_write_file_stays_within(hostile: Path) -> None:
    for path in ("out/new", "d/up/new", "../new", "out/below/secret"):
        with pytest.raises(OSError, match=r"out of its tree|Not a dir"):
            descent.write_file(str(hostile), path, b"x")
    descent.write_file(str(hostile), "d/secret", b"mine", 0o640, (12, 34))
    descent.write_file(str(hostile), "new/er/file", b"new")
    status = (hostile / "d/secret").lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 12, 34)
    assert [(hostile / name).read_text() for name in ("d/secret", "new/er/file")] == ["mine", "new"]
    host = hostile.parent / "host"
    assert [str(path.relative_to(host)) for path in sorted(host.rglob("*"))] == ["below", "below/secret"]
    assert (host / "below/secret").read_text() == "secret"
    assert sorted(os.listdir(hostile / "d")) == ["e", "secret", "up"]


def test_remove_and_link_tree_do_not_follow(hostile: Path) -> None:
    copy = hostile.parent / "copy"
    descent.link_tree(str(hostile), str(copy), ["d/e"])
    assert sorted(scan.scan(str(copy))) == ["again", "d", "d/secret", "d/up", "fifo", "out"]
    assert (copy / "fifo").lstat().st_ino == (hostile / "fifo").lstat().st_ino
    for top in (copy, hostile):
        descent.remove(str(top))
        assert not top.exists()
    assert (hostile.parent / "host/below/secret").read_text() == "secret"


# -- depth


@pytest.fixture
def deepest(tmp_path: Path, deep_is_removed: None) -> Path:
    """Directories in one another, each with a file and another directory beside it."""
    top = tmp_path / "deep"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        for name in ("a", "d"):
            os.mkdir(name, dir_fd=descriptor)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        following = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
    os.close(descriptor)
    return top


def test_any_depth_in_linear_time_and_few_descriptors(deepest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in system calls, which no other process changes; the time is far above what it takes."""
    opened, most = 0, 0
    real = os.open

    def counting(*args: object, **named: object) -> int:
        nonlocal opened, most
        opened += 1
        descriptor = real(*args, **named)  # type: ignore[arg-type]
        most = max(most, descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", counting)
    clock = time.process_time()
    found = scan.scan(str(deepest))
    assert len(found) == 3 * LEVELS
    other = deepest.parent / "other"
    other.mkdir()
    wanted = {path: entry for path, entry in found.items() if entry.type == "dir"}
    restore.restore(str(other), wanted, other)
    mounts.remove_tree(other)
    assert most < 200
    assert opened < 40 * LEVELS, "as many for each level, however deep"
    assert time.process_time() - clock < 10
    mounts.remove_tree(deepest)
    assert not deepest.exists()
    assert manifest.load(manifest.dump(found), "it") == found


@pytest.mark.usefixtures("_either_way", "deep_is_removed")
@pytest.mark.parametrize("name", [b"d" * 200, b"\xff" * 99, b"s"])
def test_paths_longer_than_a_system_call_takes(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(deep(tmp_path, name, 5000))
    with descent.reach(str(tmp_path), f"{path}/file") as full:
        assert Path(full).read_bytes() == b"deep"
    for before in ("", path, os.fsdecode(name)):
        with Descent(str(tmp_path)) as tree:
            tree.directory(before)
            assert sorted(os.listdir(tree.directory(path))) == ["file", "link", "other"]
            assert tree.directory("") >= 0


# -- while somebody else changes the tree


def test_a_directory_that_becomes_a_link_meanwhile(tmp_path: Path) -> None:
    """Its place in the path is swapped as fast as it goes; what it leads to never changes."""
    top, host = tmp_path / "top", tmp_path / "host"
    for directory in (top, host):
        (directory / "d/e").mkdir(parents=True)
        (directory / "d/e/file").write_text("x")
    (top / "link").symlink_to(host / "d")
    wanted = {path: entry._replace(uid=12, gid=34, mode=entry.mode ^ 0o111, mtime=5)
              for path, entry in scan.scan(str(top)).items() if path.startswith("d")}  # fmt: skip
    before = scan.scan(str(host))
    exchange = exchanger(str(top / "d"), str(top / "link"))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange()

    thread = threading.Thread(target=swap)
    thread.start()
    refused = 0
    try:
        deadline = time.monotonic() + 20
        for number in itertools.count():
            if number >= 300 and (refused or time.monotonic() > deadline):
                break
            try:
                restore.restore(str(top), wanted, tmp_path / "none")
            except AvsError:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert refused, "never hit"
    assert scan.scan(str(host)) == before


def exchanger(one: str, other: str) -> Callable[[], object]:
    libc = ctypes.CDLL(None)
    return lambda: libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
