"""What an overlay changes, as a plain tree and a list of removed paths."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from xcat_avs.tree import delta
from xcat_avs.tree.patterns import lies_in

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="not root")
STAMP = 1_600_000_000_000_000_000


def write(path: Path, text: str = "x", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, 0o20000, os.makedev(0, 0))


def opaque(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.setxattr(path, delta.OPAQUE, b"y")


def even(*tops: Path) -> None:
    """Give all paths the same time."""
    for top in tops:
        for directory, names, files in os.walk(top, topdown=False):
            for name in [*names, *files, "."]:
                os.utime(os.path.join(directory, name), ns=(STAMP, STAMP), follow_symlinks=False)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    upper.mkdir()
    lower.mkdir()
    return upper, lower


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.mark.parametrize(
    "path", ["plain/a-b_c.d", "a b", "tab\tnew\nline", "back\\slash", "zażółć", "\udcff", "100%41", "it's"]
)
def test_escape(path: str) -> None:
    word = delta.escape(path)
    assert delta.unescape(word) == path
    assert word.isascii()
    assert not set(word) & set(" \t\n'\"%$`*?[")
    for shell in (["sh"], ["bash"]):
        script = ["-c", 'printf %b "$1"', "sh", word]
        printed = subprocess.run([*shell, *script], capture_output=True, check=True).stdout
        assert printed == os.fsencode(path)


def test_list() -> None:
    assert delta.load(delta.dump(["b\nc", "a"])) == ["a", "b\nc"]
    assert delta.dump([]) == ""


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("var/cache/apt/archives/x", "var/cache/apt", True),
        ("var/cache/aptly", "var/cache/apt", False),
        ("var/cache/x-old", "var/cache/*-old", True),
        ("var/cache/x/y-old", "var/cache/*-old", False),
        ("usr/lib/a/b/c.pyc", "/usr/lib/**/*.pyc", True),
        ("usr/lib/c.pyc", "usr/lib/**/*.pyc", True),
        ("usr/lib", "usr/lib/**/*.pyc", False),
        ("tmp", "tmp/x", False),
        ("Tmp/x", "tmp", False),
    ],
)
def test_matches(path: str, pattern: str, expected: bool) -> None:
    assert lies_in(path, pattern) is expected


@ROOT
def test_what_is_the_same_is_dropped(trees: tuple[Path, Path]) -> None:
    upper, lower = trees
    for top in trees:
        write(top / "etc/same", "s")
        write(top / "etc/content", "a" if top is upper else "b")
        write(top / "etc/mode", mode=0o600 if top is upper else 0o644)
        write(top / "etc/owner")
        write(top / "etc/attribute")
        write(top / "etc/time")
        write(top / "only/same/deep")
        (top / "etc/link").symlink_to("x")
        (top / "etc/other").symlink_to("x" if top is upper else "y")
    os.chown(upper / "etc/owner", 12345, 0)
    os.setxattr(upper / "etc/attribute", "user.a", b"b")
    write(upper / "etc/new")
    even(*trees)
    os.utime(upper / "etc/time", ns=(0, 0))
    assert delta.settle(str(upper), str(lower)) == []
    assert names(upper) == [
        "etc",
        *(f"etc/{name}" for name in ("attribute", "content", "mode", "new", "other", "owner", "time")),
    ]
    assert (upper / "etc").stat().st_mtime_ns == STAMP


@ROOT
def test_a_new_name_of_an_old_file_keeps_both(trees: tuple[Path, Path]) -> None:
    upper, lower = trees
    write(lower / "a")
    write(upper / "a")
    os.link(upper / "a", upper / "b")
    even(*trees)
    assert delta.settle(str(upper), str(lower)) == []
    assert names(upper) == ["a", "b"]


@ROOT
def test_removals(trees: tuple[Path, Path]) -> None:
    upper, lower = trees
    for name in ("gone", "dir/gone too", "whole/a", "whole/b/c", "was a dir/x", "was a file", "below/opaque/x"):
        write(lower / name)
    (lower / "was a link").symlink_to("dir")
    (lower / "link to link").symlink_to("dir")
    for name in ("gone", "dir/gone too", "never was", "below/opaque"):
        whiteout(upper / name)
    opaque(upper / "whole")
    write(upper / "whole/a")
    whiteout(upper / "whole/b")
    write(upper / "was a dir")
    write(upper / "was a file/x")
    opaque(upper / "was a link")
    (upper / "link to link").symlink_to("elsewhere")
    opaque(upper / "new dir")
    assert delta.settle(str(upper), str(lower)) == [
        "below/opaque", "dir/gone too", "gone", "was a dir", "was a file", "was a link", "whole",
    ]  # fmt: skip
    assert names(upper) == [
        "below", "dir", "link to link", "new dir", "was a dir", "was a file", "was a file/x", "was a link", "whole", "whole/a",
    ]  # fmt: skip
    assert all(delta.OPAQUE not in os.listxattr(path, follow_symlinks=False) for path in upper.rglob("*"))


@ROOT
def test_exclude(trees: tuple[Path, Path]) -> None:
    upper, lower = trees
    write(lower / "var/cache/old")
    write(lower / "etc/x")
    even(*trees)
    write(upper / "var/cache/apt/pkgcache.bin")
    whiteout(upper / "var/cache/old")
    write(upper / "var/log/kept.log")
    write(upper / "etc/x~")
    assert delta.settle(str(upper), str(lower), ["var/cache", "etc/*~"]) == []
    # Directories of packages stay, though what is in them does not; one that only was looked into does not.
    assert names(upper) == ["var", "var/cache", "var/cache/apt", "var/log", "var/log/kept.log"]


@ROOT
def test_an_overlay_nobody_changed_is_empty(trees: tuple[Path, Path]) -> None:
    upper, lower = trees
    write(lower / "etc/x")
    assert delta.settle(str(upper), str(lower)) == []
    assert names(upper) == []


@ROOT
@pytest.mark.usefixtures("deep_is_removed")
def test_settle_of_directories_deeper_than_python_goes(trees: tuple[Path, Path]) -> None:
    """What is copied up of them as it was goes, and what is new at their end stays."""
    for number, top in enumerate(trees):
        descriptor = os.open(top, os.O_RDONLY)
        for _ in range(1300):
            os.mkdir("d", dir_fd=descriptor)
            following = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.utime(descriptor, ns=(STAMP, STAMP))
            os.close(descriptor)
            descriptor = following
        if not number:
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)
    upper, lower = trees
    assert delta.settle(str(upper), str(lower)) == []
    assert delta.tree_paths(upper) == 1301
    os.unlink(upper / ("d/" * 1300 + "new"))
    os.utime(upper / ("d/" * 1300), ns=(STAMP, STAMP))
    os.utime(lower / ("d/" * 1300), ns=(STAMP, STAMP))
    assert delta.settle(str(upper), str(lower)) == []
    assert delta.tree_paths(upper) == 0
