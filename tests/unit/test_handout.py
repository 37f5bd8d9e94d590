"""A version in a directory of the user's: whole and proven, or nothing of it, however it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional, cast

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, Interrupted, NotFoundError
from xcat_avs.store.handout import UNDONE, hand_out
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.system.runner import QUIET
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import manifest, scan

IMAGE, VERSION = OsImage("debian12-x86_64-netboot-example.prod", {}), Version(tag="v1")
FILES = {"kernel": "a kernel", "rootimg/etc/passwd": "root\n", "rootimg/usr/bin/su": "#!", "build_info/report": "ok"}


def write(tree: Path) -> None:
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (tree / "rootimg/usr/bin/su").chmod(0o4755)


class Exports:
    """A store that has FILES. then: what happens when they are written."""

    def __init__(self, top: Path, then: Callable[[Path], object] = str, proven: bool = True) -> None:
        write(top / "original")
        self.then = then
        self.runner = QUIET
        self.text = manifest.dump(scan.scan(str(top / "original"))) if proven else None

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        if self.text is None:
            raise NotFoundError("not in the store")
        return self.text.encode()

    def paths(self, image: OsImage, version: Version) -> set[str]:
        return {*manifest.load(self.text or "", "it"), MANIFEST}

    def export(
        self, image: OsImage, version: Version, target: Path, wanted: Optional[manifest.Manifest] = None
    ) -> None:
        write(target)
        if self.text is not None:
            (target / MANIFEST).write_text(self.text)
        self.then(target)


def checkout(store: Exports, directory: Path, warnings: Optional[list[str]] = None) -> manifest.Manifest:
    said = warnings if warnings is not None else []
    return hand_out(cast(Store, store), IMAGE, VERSION, directory, said.append)


def is_whole(directory: Path) -> bool:
    return (
        sorted(os.listdir(directory)) == ["build_info", "kernel", "rootimg"]
        and (directory / "rootimg/etc/passwd").read_text() == "root\n"
        and (directory / "rootimg/usr/bin/su").stat().st_mode & 0o7777 == 0o4755
        and (directory / MANIFEST).is_file()
    )


def test_a_new_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    checkout(Exports(tmp_path), tmp_path / "out")
    assert is_whole(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_an_empty_directory_stays_the_one_that_it_is(tmp_path: Path) -> None:
    """It may be a mount point, or the one that the user's shell is in."""
    (tmp_path / "out").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("out")
    before = (tmp_path / "out").stat()
    checkout(Exports(tmp_path), tmp_path / "link")
    after = (tmp_path / "out").stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert is_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("full", "full is not empty: it holds a, b, c and 1 more; give a directory that is empty"),
        ("file", "file is no directory"),
        ("none/out", "none/out cannot be made: there is no directory .*none; `mkdir -p "),
        ("dangling", "nowhere"),
    ],
)
def test_another_place_is_refused_and_left(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "full").mkdir()
    for item in "abcd":
        (tmp_path / "full" / item).write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to("nowhere/else")
    with pytest.raises(AvsError, match=words):
        checkout(Exports(tmp_path), tmp_path / name)
    assert sorted(os.listdir(tmp_path / "full")) == list("abcd")
    assert (tmp_path / "file").read_text() == "precious"


def interrupt(_tree: Path) -> None:
    raise Interrupted(signal.SIGTERM)


def damage(tree: Path) -> None:
    (tree / "kernel").write_text("another")


@pytest.mark.parametrize(("then", "error"), [(interrupt, Interrupted), (damage, AvsError)])
@pytest.mark.parametrize("made", [False, True])
def test_a_failure_leaves_the_directory_as_it_was(
    tmp_path: Path, then: Callable[[Path], object], error: type[BaseException], made: bool
) -> None:
    out = tmp_path / "out"
    if made:
        out.mkdir()
    with pytest.raises(error):
        checkout(Exports(tmp_path, then), out)
    assert (os.listdir(out) if out.exists() else None) == ([] if made else None)


def test_an_interrupted_move_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, moved = os.rename, list[str]()

    def once(source: Path, target: Path) -> None:
        if target.parent == tmp_path / "out":
            moved.append(target.name)
            if target.name == "rootimg":
                interrupt(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(Interrupted):
        checkout(Exports(tmp_path), tmp_path / "out")
    assert moved == ["build_info", "kernel", "rootimg"], "the image comes last"
    assert not (tmp_path / "out").exists()


def killed(store: Exports, directory: Path) -> Sequence[str]:
    """What a run leaves that is killed by SIGKILL while it checks out."""
    pid = os.fork()
    if pid == 0:
        checkout(store, directory)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    return os.listdir(directory)


def test_a_killed_run_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    left = killed(Exports(tmp_path, lambda tree: os.kill(os.getpid(), signal.SIGKILL)), tmp_path / "out")
    assert [name.startswith(UNDONE) for name in left] == [True]
    checkout(Exports(tmp_path), tmp_path / "out")
    assert is_whole(tmp_path / "out"), "the next one removes it"


def test_two_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        own_directory(tmp_path / "out", UNDONE),
        pytest.raises(AvsError, match="another checkout into "),
    ):
        checkout(Exports(tmp_path), tmp_path / "out")
    checkout(Exports(tmp_path), tmp_path / "out")


def test_what_avs_image_mgr_made_is_not_proven(tmp_path: Path) -> None:
    warnings: list[str] = []
    found = checkout(Exports(tmp_path, proven=False), tmp_path / "out", warnings)
    assert "kernel" in found
    assert ["cannot be proven" in text for text in warnings] == [True]
