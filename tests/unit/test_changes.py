"""From one manifest to another: the words for svnmucc, and what FSVS makes of the result."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xcat_avs.store.fsvs import changes
from xcat_avs.store.fsvs.subversion import quote
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry, Manifest

UID, GID = 61234, 61235
NS = 1_600_000_000_123_456_000  # nanoseconds; FSVS keeps microseconds


def entry(path: str, kind: str, content: str = "1") -> Entry:
    """Something of a type; content: what tells two of a type apart."""
    made = Entry(path, kind, 0o755 if kind == "dir" else 0o644, 0, 0, NS)
    if kind == "file":
        return made._replace(size=len(content), sha256=content)
    if kind == "link":
        return made._replace(link=content, mode=0o777)
    return made if kind == "dir" else made._replace(device=(1, int(content)))


def listed(*entries: Entry) -> Manifest:
    return {item.path: item for item in entries}


def words(old: Manifest, new: Manifest, anew: Collection[str] = ()) -> list[str]:
    """The actions without the properties of owner, mode and time, each as one text."""
    plain = ("svn:owner", "svn:group", "svn:unix-mode", "svn:text-time")
    return [" ".join(action) for action in changes.actions(old, new, anew) if not set(plain) & set(action)]


KINDS = ("file", "dir", "link", "char", "block")
ADDED = {
    "": [], "file": ["put x"], "dir": ["mkdir x"], "link": ["put x", "propset svn:special * x"],
    "char": ["put x", "propset svn:special * x"], "block": ["put x", "propset svn:special * x"],
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), list(itertools.product(["", *KINDS], ["", *KINDS])))
def test_every_pair_of_types(old: str, new: str) -> None:
    before, after = (listed(entry("x", kind)) if kind else {} for kind in (old, new))
    expected = [] if old == new else (["rm x"] if old else []) + ADDED[new]
    assert words(before, after) == expected
    properties = [action for action in changes.actions(before, after) if action[0] == "propset"]
    if old != new and new:
        assert {action[1] for action in properties if action[1] != "svn:special"} == set(changes.properties(after["x"]))
    else:
        assert properties == []


@pytest.mark.parametrize("kind", ["file", "link", "char", "block"])
def test_another_content_of_the_same_type(kind: str) -> None:
    before, after = listed(entry("x", kind)), listed(entry("x", kind, "2"))
    assert words(before, after) == ["put x"]
    assert [action[0] for action in changes.actions(before, after)] == ["put"], "its properties are as they were"
    assert changes.content_differs(before["x"], after["x"])
    assert not changes.content_differs(before["x"], before["x"]._replace(uid=3, mtime=3, mode=3))


def test_content_of_same_size_is_another() -> None:
    before = listed(entry("x", "file"))
    assert words(before, listed(before["x"]._replace(sha256="2"))) == ["put x"]
    assert words(before, listed(before["x"]._replace(size=2))) == ["put x"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"uid": UID}, ("svn:owner", f"{UID} ")),
        ({"gid": GID}, ("svn:group", f"{GID} ")),
        ({"mode": 0o4755}, ("svn:unix-mode", "04755")),
        ({"mode": 0}, ("svn:unix-mode", "0000")),
        ({"mtime": NS + 1000}, ("svn:text-time", "2020-09-13T12:26:40.123457Z")),
        ({"mtime": -1}, ("svn:text-time", "1969-12-31T23:59:59.999999Z")),
    ],
)
@pytest.mark.parametrize("kind", ["file", "dir", "char"])
def test_one_property(kind: str, change: dict[str, int], expected: tuple[str, str]) -> None:
    before = listed(entry("x", kind))
    after = listed(before["x"]._replace(**change))  # type: ignore[arg-type]
    assert list(changes.actions(before, after)) == [("propset", *expected, "x")]


def test_what_only_the_manifest_keeps_is_no_action() -> None:
    before = listed(entry("x", "file"))
    kept: tuple[dict[str, object], ...] = (
        {"xattrs": (("user.x", b"1"),)},
        {"hardlink": "a"},
        {"sparse": True},
        {"mtime": NS + 1},
    )
    for change in kept:
        assert list(changes.actions(before, listed(before["x"]._replace(**change)))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "year"), [(300_000_000_000, "9999"), (2**63 // 10**9 * 10**9, "9999"), (-(2**62), "1000"), (-1, "1969")]
)
def test_times_that_a_property_cannot_hold(seconds: int, year: str) -> None:
    """The manifest holds them; what FSVS is told has a year of four digits."""
    found = changes.properties(entry("x", "file")._replace(mtime=seconds * 10**9))
    assert re.fullmatch(rf"{year}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z", found["svn:text-time"])


def test_a_link_has_no_mode() -> None:
    assert "svn:unix-mode" not in changes.properties(entry("x", "link"))
    assert changes.properties(entry("x", "file"))["svn:owner"] == "0 root"


def test_directories_that_are_replaced_take_all_below_along() -> None:
    before = listed(
        entry("d", "dir"), entry("d/e", "dir"), entry("d/e/f", "file"), entry("d/g", "file"), entry("d-", "file")
    )
    assert words(before, {}) == ["rm d", "rm d-"]
    assert words(before, listed(entry("d", "file"), entry("d-", "file"))) == ["rm d", "put d"]
    after = listed(entry("d", "dir"), entry("d/e", "link"), entry("d/g", "file"), entry("d-", "file"))
    assert words(before, after) == ["rm d/e", "put d/e", "propset svn:special * d/e"]
    # The other way round: what stands below a file that becomes a directory is new, whatever it is like.
    assert words(listed(entry("d", "file")), before) == [
        "rm d", "mkdir d", "put d-", "mkdir d/e", "put d/e/f", "put d/g",
    ]  # fmt: skip
    again = {
        path: item._replace(path=path)
        for path, item in (("d", entry("d", "dir")), ("d/e", entry("d/e", "file", "9")), ("d-", entry("d-", "file")))
    }
    assert words(before, again) == ["rm d/e", "put d/e", "rm d/g"]


def test_a_name_that_begins_like_a_replaced_directory_stays() -> None:
    before = listed(
        entry("d", "dir"), entry("d/x", "file"), entry("d.x", "file"), entry("dx", "dir"), entry("dx/y", "file")
    )
    after = {**before, "d": entry("d", "link")}
    del after["d/x"]
    assert words(before, after) == ["rm d", "put d", "propset svn:special * d"]


def test_files_that_are_made_anew() -> None:
    """What goes ahead is copied in, which only a place that is free takes; its properties come again."""
    before = listed(entry("a", "file"), entry("b", "file"), entry("c", "file"))
    after = listed(entry("a", "file", "2"), entry("b", "file", "2"), entry("c", "file"), entry("n", "file"))
    assert words(before, after, {"b", "n"}) == ["put a", "rm b", "put b", "put n"]
    assert [action[1] for action in changes.actions(before, after, {"b"}) if action[0] == "propset" and action[-1] == "b"] == [
        "svn:owner", "svn:group", "svn:text-time", "svn:unix-mode",
    ]  # fmt: skip


def test_uploads_are_files_of_the_tree_or_texts(tmp_path: Path) -> None:
    after = listed(entry("d", "dir"), entry("d/f", "file"), entry("l", "link", "to\nö\udcff"), entry("c", "char"))
    found = changes.uploads({}, after, Path("/the/tree"), tmp_path)
    assert list(found) == ["c", "d/f", "l"]
    assert found["d/f"] == "/the/tree/d/f"
    assert Path(found["c"]).read_bytes() == b"cdev 0x1:0x1"
    assert Path(found["l"]).read_bytes() == b"link to\n\xc3\xb6\xff"
    assert changes.uploads(after, after, Path("/the/tree"), tmp_path) == {}


@pytest.mark.parametrize(
    ("kind", "device", "text"),
    [
        ("char", (1, 3), "cdev 0x1:0x3"), ("block", (8, 0), "bdev 0x8:0x0"), ("char", (10, 255), "cdev 0xa:0xff"),
        ("block", (259, 70000), "bdev 0x111103:0x70"),
    ],
)  # fmt: skip
def test_devices_as_fsvs_writes_them(kind: str, device: tuple[int, int], text: str) -> None:
    assert changes.special_text(entry("x", kind)._replace(device=device)) == text


# -- with the real programs


@dataclass(frozen=True)
class Repository:
    """A repository for trees, by svnmucc as by FSVS."""

    top: Path

    @property
    def url(self) -> str:
        return f"file://{self.top}/repo"

    def run(self, *argv: str, cwd: Path | None = None) -> str:
        env = {**os.environ, "LC_ALL": "C.UTF-8", "FSVS_CONF": f"{self.top}/conf", "FSVS_WAA": f"{self.top}/waa"}
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout!r} {done.stderr!r}"
        return done.stdout.decode("utf-8", "surrogateescape")

    def commit(self, old: Manifest, new: Manifest, tree: Path, anew: Sequence[str] = ()) -> None:
        texts = self.top / "texts"
        texts.mkdir(exist_ok=True)
        sources = changes.uploads(old, new, tree, texts)
        lines = []
        for word, *more, path in changes.actions(old, new, anew):
            lines += [word, *more, *([sources[path]] if word == "put" else []), f"{self.url}/trunk/{quote(path)}"]
        (self.top / "arguments").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self.run("svnmucc", "-m", "m", "-X", str(self.top / "arguments"))

    def export(self, name: str) -> Path:
        target = self.top / name
        target.mkdir()
        self.run("fsvs", "-q", "export", f"{self.url}/trunk", cwd=target)
        return target

    def fsvs_commit(self, tree: Path) -> None:
        self.run("fsvs", "-q", "initialize", f"{self.url}/trunk", cwd=tree)
        self.run("fsvs", "-q", "ci", "-m", "m", cwd=tree)

    def properties(self) -> dict[str, dict[str, str]]:
        """Path -> its properties."""
        found = {}
        root = ElementTree.fromstring(self.run("svn", "proplist", "-R", "-v", "--xml", f"{self.url}/trunk"))
        for target in root.iter("target"):
            path = changes_path(target.get("path", ""), f"{self.url}/trunk")
            found[path] = {item.get("name", ""): item.text or "" for item in target.iter("property")}
        return found


def changes_path(url: str, top: str) -> str:
    from urllib.parse import unquote

    return unquote(url[len(top) :]).lstrip("/")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for program in ("svn", "svnmucc", "svnadmin", "fsvs"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Repository(tmp_path)
    for name in ("conf", "waa"):
        (tmp_path / name).mkdir()
    made.run("svnadmin", "create", str(tmp_path / "repo"))
    made.run("svn", "mkdir", "-q", "-m", "m", f"{made.url}/trunk")
    return made


def make(path: Path, kind: str, content: str) -> None:
    if kind == "file":
        path.write_text(content)
    elif kind == "dir":
        path.mkdir()
        for inner in ("file", "link"):
            make(path / inner, inner, content)
        (path / "sub").mkdir()
        (path / "sub/file").write_text(content)
    elif kind == "link":
        path.symlink_to(content)
    elif kind:
        os.mknod(path, 0o640 | (stat.S_IFCHR if kind == "char" else stat.S_IFBLK), os.makedev(5, 300 + len(content)))


def settle(top: Path, stamp: int) -> Manifest:
    """Give everything a time in whole microseconds; returns the manifest."""
    for directory, names, files in os.walk(top, topdown=False):
        for name in [*names, *files]:
            stamp += 1_000_001_000
            os.utime(os.path.join(directory, name), ns=(stamp, stamp), follow_symlinks=False)
    return scan.scan(str(top))


def test_every_pair_of_types_comes_out_of_fsvs(repository: Repository, tmp_path: Path) -> None:
    """All pairs in one transaction, and the way back in another."""
    trees = [tmp_path / "old", tmp_path / "new"]
    for number, tree in enumerate(trees):
        tree.mkdir()
        for pair in itertools.product(["", *KINDS], ["", *KINDS]):
            make(tree / f"{pair[0] or 'nothing'} to {pair[1] or 'nothing'} @1%20é", pair[number], "x" * (number + 1))
    old, new = (settle(tree, NS + number * 10**12) for number, tree in enumerate(trees))
    repository.commit({}, old, trees[0])
    assert manifest.compare(old, scan.scan(str(repository.export("out0"))), times=True) == []
    repository.commit(old, new, trees[1])
    assert manifest.compare(new, scan.scan(str(repository.export("out1"))), times=True) == []
    repository.commit(new, old, trees[0])
    assert manifest.compare(old, scan.scan(str(repository.export("out2"))), times=True) == []


def _nested(top: Path) -> None:
    """A directory becomes a file and the file beside it a directory, at several depths at once."""
    shutil.rmtree(top / "a/b")
    (top / "a/b").write_text("was a directory")
    (top / "f").unlink()
    (top / "f/a/b").mkdir(parents=True)
    (top / "f/a/b/c").symlink_to("x")
    os.rename(top / "r", top / "a/r")
    (top / "e").rmdir()


def _owners_and_modes(top: Path) -> None:
    os.chown(top / "f", UID, GID)
    os.chmod(top / "f", 0o6755)
    os.chown(top / "a", UID, 0)
    os.chmod(top / "a", 0o1777)
    os.chown(top / "r/l", GID, UID, follow_symlinks=False)
    os.chmod(top / "r/f", 0)


def _contents(top: Path) -> None:
    (top / "f").write_bytes(b"\r\n$Id$\n\0\xff")
    (top / "r/f").write_bytes(b"")
    (top / "r/l").unlink()
    (top / "r/l").symlink_to("a\nb \udcff")


@pytest.mark.parametrize("change", [_nested, _owners_and_modes, _contents])
def test_changes_come_out_of_fsvs(repository: Repository, tmp_path: Path, change: Callable[[Path], None]) -> None:
    tree = tmp_path / "tree"
    for name in ("a/b/c/d", "r", "e", ".svn/sub"):
        (tree / name).mkdir(parents=True)
    for name in ("f", "r/f", "a/b/f", "a/b/c/d/f", "r/ lead and trail ", "r/-dash", "r/#x", "r/\\n", ".svn/sub/file"):
        (tree / name).write_text(name)
    (tree / "r/l").symlink_to("nowhere")
    os.chmod(tree / "f", 0o600)
    os.chown(tree / "a", UID, GID)
    old = settle(tree, NS)
    # As a first commit is: by FSVS itself.
    repository.fsvs_commit(tree)
    change(tree)
    new = settle(tree, NS + 10**13)
    repository.commit(old, new, tree)
    assert manifest.compare(new, scan.scan(str(repository.export("out"))), times=True) == []


def test_properties_are_those_of_fsvs(repository: Repository, tmp_path: Path) -> None:
    """Each property of each path, letter for letter."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for number, mode in enumerate((0, 0o1, 0o10, 0o644, 0o755, 0o1755, 0o2755, 0o4755, 0o7777)):
        (tree / f"d/{number}").write_text("x")
        os.chown(tree / f"d/{number}", UID * (number % 2), GID * (number % 3))
        os.chmod(tree / f"d/{number}", mode)
    os.chmod(tree / "d", 0o3700)
    (tree / "l").symlink_to("é")
    for number, device in enumerate(((1, 3), (8, 16), (259, 70000), (5, 300), (4095, 2**20 - 1))):
        os.mknod(tree / f"dev{number}", 0o660 | stat.S_IFBLK, os.makedev(*device))
    settle(tree, NS)
    # FSVS itself writes a fraction before 1970 with a minus in it: whole seconds there.
    for number, stamp in enumerate((0, -2_000_000_000, 1_000, 2**31 * 10**9, 2**32 * 10**9 + 999_999_999)):
        os.utime(tree / f"d/{number}", ns=(stamp, stamp))
    found = scan.scan(str(tree))
    repository.fsvs_commit(tree)
    stored = repository.properties()
    for path, item in found.items():
        special = {"svn:special": "*"} if changes.special_text(item) else {}
        assert stored[path] == {**changes.properties(item), **special}, path
        if special:
            text = repository.run("svn", "cat", f"{repository.url}/trunk/{path}@")
            assert text == changes.special_text(item), path
