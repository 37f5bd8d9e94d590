"""Whole trees into a store and out of it, proven: with the real programs on a repository of their own."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import stat
import subprocess
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from fakes import xcat

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store import engines, kept, layout, trees
from xcat_avs.store.carried import carried
from xcat_avs.store.fsvs import fetching
from xcat_avs.store.fsvs.store import FsvsStore
from xcat_avs.store.protocol import Revision, Version
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

IMAGE = OsImage(
    "rocky9.4-x86_64-netboot-example.prod", {"osvers": "rocky9.4", "osarch": "x86_64", "profile": "example.prod"}
)


def listed(**kinds: str) -> Manifest:
    return {path: Entry(path, kind, 0o644, 0, 0, 0) for path, kind in kinds.items()}


# -- what is set aside


@pytest.mark.parametrize(
    "name",
    [
        "plain", " ", " lead", "trail ", "é", "日本", "a@b", "%2F", "\\", "n" * 248, "é" * 124, "-", ".svn", "\u0085", "\u2028",
    ],
)  # fmt: skip
def test_names_that_are_stored(name: str) -> None:
    for kind in ("file", "dir", "link", "char", "block"):
        assert carried(listed(**{name: kind})) == set(), kind


@pytest.mark.parametrize(
    "name", ["new\nline", "tab\t", "\x01", "\x1b[0m", "\x7f", "\r", "\udcff", "caf\udce9", "n" * 249, "é" * 125]
)
def test_names_that_are_carried(name: str) -> None:
    for kind in ("file", "link", "char", "block"):
        assert carried(listed(**{name: kind})) == {name}, kind
        assert carried(listed(d="dir", **{f"d/{name}": kind})) == {f"d/{name}"}
    assert carried(listed(**{name: "dir"})) == (set() if len(name) > 100 else {name})


def test_all_below_a_carried_directory_is_carried() -> None:
    found = listed(**{"d\n": "dir", "d\n/a": "dir", "d\n/a/b": "file", "d\n.x": "file", "d": "dir", "d/x": "file"})
    assert carried(found) == {"d\n", "d\n/a", "d\n/a/b", "d\n.x"}
    assert carried(listed(**{"d": "dir", "d/\udcff": "dir", "d/\udcff/x": "file", "d/y": "file"})) == {
        "d/\udcff", "d/\udcff/x",
    }  # fmt: skip


def test_fifos_are_carried() -> None:
    assert carried(listed(f="fifo", d="dir", **{"d/f": "fifo"})) == {"f", "d/f"}


@pytest.mark.parametrize("kind", ["char", "block"])
def test_devices_that_fsvs_cannot_make_are_carried(kind: str) -> None:
    """It keeps a number in 32 bits with a sign."""
    for device, aside in (((0, 0), False), ((4095, 0x7FFFF), False), ((5, 0x80000), True), ((0, 0xFFFFF), True)):
        assert carried({"d": Entry("d", kind, 0o600, 0, 0, 0, device=device)}) == ({"d"} if aside else set())


def test_long_paths_are_carried() -> None:
    parts = ["d" * 199] * 16
    found = {"/".join(parts[:depth]): Entry("", "dir", 0o755, 0, 0, 0) for depth in range(1, 17)}
    assert {len(path) for path in carried(found)} == {3199}
    found = {"/".join("d" * depth): Entry("", "dir", 0o755, 0, 0, 0) for depth in range(1, 203)}
    assert {path.count("/") for path in carried(found)} == {201}
    assert carried({"é" * 100 + "/" + path: entry for path, entry in found.items()}) != set()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("build_info", True), ("build_info/report", True), ("build_info/logs/x", True), ("build_info/manifest", True),
        ("build_info/carried/x", True), ("build_info/inputs", False), ("build_info/inputs/recipe.conf", False),
        ("build_info/inputs.old", True), ("build_information", False), ("rootimg/build_info/x", False), ("kernel", False),
    ],
)  # fmt: skip
def test_volatile(path: str, expected: bool) -> None:
    assert trees.volatile(path) is expected


# -- with a repository


@dataclass
class Site:
    """A tree, a store, and what was warned of."""

    top: Path
    warned: list[str] = field(default_factory=list)
    engine: str = "fsvs"

    @property
    def tree(self) -> Path:
        return self.top / "tree"

    @property
    def root(self) -> Path:
        return self.tree / "rootimg"

    @property
    def store(self) -> FsvsStore:
        if self.engine == "fsvs":
            return FsvsStore(f"file://{self.top}/repo", self.top / "work", Runner(timeout=60))
        made = engines.store(f"ostree:{self.top}/repo", self.top, Runner(timeout=60), str)
        return cast(FsvsStore, made)  # whose methods most tests use

    @property
    def kept(self) -> Path:
        return self.top / "kept/tree"

    def commit(self, message: str = "m") -> tuple[Revision, bool]:
        return trees.commit_tree(self.store, IMAGE, self.tree, "ann", f"ann; {message}", self.warned.append)

    def checkout(
        self, version: Version | None = None, target: Path | None = None, build: trees.Build = trees.no_build
    ) -> Manifest:
        version, target = version or Version(), target or self.kept
        return trees.checkout_tree(self.store, IMAGE, version, target, self.warned.append, build)

    def rootimg(self, top: Path) -> Manifest:
        return scan.scan(str(top / "rootimg"))

    def cat(self, path: str) -> bytes:
        return self.store.read(IMAGE, Version(), path)


both = pytest.mark.parametrize("site", ["fsvs", "ostree"], indirect=True)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    for program in ("svn", "svnmucc", "svnadmin", "svnserve", "fsvs", "ostree"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Site(tmp_path, engine=getattr(request, "param", "fsvs"))
    (made.tree / "build_info/inputs").mkdir(parents=True)
    (made.tree / "build_info/inputs/recipe.conf").write_text("steps\n")
    (made.tree / "build_info/report").write_text("built\n")
    for name in ("etc", "empty", "usr/lib"):
        (made.root / name).mkdir(parents=True)
    for name in ("etc/passwd", "etc/hosts", "usr/lib/new\nline", "usr/lib/caf\udce9"):
        (made.root / name).write_text(f"{name!a}\n")
    os.link(made.root / "etc/hosts", made.root / "usr/lib/hosts")
    os.setxattr(made.root / "etc/passwd", "user.x", b"1")
    os.mkfifo(made.root / "etc/fifo")
    os.utime(made.root / "etc/hosts", ns=(1, -1))
    return made


@both
@pytest.mark.slow
def test_commit_and_checkout(site: Site) -> None:
    revision, changed = site.commit()
    assert changed
    assert site.store.head(IMAGE) == revision
    assert (revision.author, revision.message) == ("ann", "ann; m")
    wanted = site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert set(wanted) >= {"rootimg/etc/fifo", "rootimg/usr/lib/new\nline", "build_info/report"}
    assert not set(wanted) & {"build_info/manifest", "build_info/carried"}
    assert site.cat("build_info/manifest") == manifest.dump(wanted).encode()
    assert site.warned == []
    stored = trees.stored_manifest(site.store, IMAGE, Version(revision=revision.number))
    assert stored == wanted
    with pytest.raises(NotFoundError):
        site.store.read(IMAGE, Version(), "rootimg/etc/fifo")


@both
@pytest.mark.slow
def test_unchanged_is_not_committed_and_gets_no_new_times(site: Site) -> None:
    first, _ = site.commit()
    manifests = scan.scan(str(site.root))
    (site.tree / "build_info/report").write_text("built again\n")
    for path in site.root.rglob("*"):
        os.utime(path, follow_symlinks=False)
    assert site.commit() == (first, False)
    # A change brings the times of all that did not change back, and stores the new report.
    (site.root / "etc/passwd").write_text("changed\n")
    second, changed = site.commit()
    assert (changed, second.number) == (True, first.number + 1)
    found = scan.scan(str(site.root))
    assert {path for path in found if found[path] != manifests[path]} == {"etc/passwd"}
    assert site.cat("build_info/report") == b"built again\n"
    site.checkout()
    assert site.rootimg(site.kept) == found


@both
@pytest.mark.slow
def test_an_initrd_with_the_same_files_gets_the_stored_bytes_back(site: Site) -> None:
    """Each run of what makes it gives others, by its times and inode numbers."""
    paths = [site.tree / "initrd-stateless.gz", site.root / "boot/initramfs-6.1.img"]
    paths[1].parent.mkdir()

    def make(text: bytes = b"#!/bin/sh\n") -> list[bytes]:
        for path in paths:
            path.write_bytes(gzip.compress(xcat.newc({"init": text})))
        return [path.read_bytes() for path in paths]

    made = make()
    first, _ = site.commit()
    assert make() != made
    assert site.commit() == (first, False)
    assert [path.read_bytes() for path in paths] == made
    assert make() != made
    os.chmod(paths[0], 0o600)
    second, changed = site.commit()
    assert (changed, [path.read_bytes() for path in paths]) == (True, made), "its own mode is no part of what it holds"
    changes = site.store.changes(IMAGE, Version(revision=first.number), Version(revision=second.number))
    assert ("initrd-stateless.gz", "properties") in changes
    assert not [path for path, _ in changes if path.startswith("rootimg")]
    assert make(b"#!/bin/ksh\n") != made
    assert site.commit()[1]
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)


@both
@pytest.mark.slow
@pytest.mark.parametrize("change", ["xattr", "hard link", "carried", "fifo", "inputs"])
def test_what_only_the_manifest_tells_is_a_change(site: Site, change: str) -> None:
    first, _ = site.commit()
    if change == "xattr":
        os.removexattr(site.root / "etc/passwd", "user.x")
    elif change == "hard link":
        (site.root / "usr/lib/hosts").unlink()
        shutil.copy2(site.root / "etc/hosts", site.root / "usr/lib/hosts")
    elif change == "carried":
        (site.root / "usr/lib/new\nline").write_text("another\n")
    elif change == "fifo":
        os.chmod(site.root / "etc/fifo", 0o600)
    else:
        (site.tree / "build_info/inputs/recipe.conf").write_text("other steps\n")
    second, changed = site.commit()
    assert (changed, second.number) == (True, first.number + 1)
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    earlier = site.checkout(Version(revision=first.number))
    assert manifest.compare(earlier, trees.stored_manifest(site.store, IMAGE, Version()) or {}) != []
    assert (site.rootimg(site.kept) == site.rootimg(site.tree)) is (change == "inputs")
    assert site.warned == []


@pytest.mark.slow
def test_devices_of_every_number(site: Site) -> None:
    """By the first commit, which is FSVS's, and by a later one; one that an older release stored comes out again."""

    def make(name: str, kind: int, *number: int) -> None:
        os.mknod(site.root / f"etc/{name}.{kind:o}", kind | 0o600, os.makedev(*number))

    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        for number, device in enumerate([(0, 0), (4095, 0x7FFFF), (5, 0x80000), (5, 0xFFFFF)]):
            make(f"first{number}", kind, *device)
    os.link(site.root / "etc/first3.20000", site.root / "etc/another.20000")
    site.commit()
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        make("later", kind, 0, 0xFFFFF)
        make("zero", kind, 0, 0)
    site.commit()
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    url = f"{site.store.url(IMAGE, Version())}/rootimg/etc/later.20000"
    (site.top / "text").write_text("cdev 0xfff000:0xff")
    words = ["put", str(site.top / "text"), url, "propset", "svn:special", "*", url]
    manifest_url = f"{site.store.url(IMAGE, Version())}/build_info/manifest"
    words += ["propset", "svn:mime-type", "text/plain", manifest_url]
    subprocess.run(["svnmucc", "-m", "m", *words], check=True)
    with pytest.raises(AvsError):
        site.checkout(target=site.top / "other/tree")
    (site.root / "etc/passwd").write_text("changed\n")
    assert site.commit()[1]
    site.checkout(target=site.top / "other/tree")
    assert site.warned == []


@both
@pytest.mark.slow
@pytest.mark.parametrize("names", [("etc/passwd", "usr/lib/same"), ("usr/lib/same", "etc/same")])
def test_files_that_become_names_of_one(site: Site, names: tuple[str, str]) -> None:
    """The first has its stored time back, and so have all: they are one file."""
    first, second = (site.root / name for name in names)
    first.write_text("the same\n")
    os.setxattr(first, "user.x", b"1")
    shutil.copy(first, second)
    os.setxattr(second, "user.x", b"1")
    os.utime(first, ns=(1, 10**18))
    os.utime(second, ns=(1, 2 * 10**18))
    site.commit()
    second.unlink()
    os.link(first, second)
    os.utime(first, ns=(1, 3 * 10**18))
    assert site.commit()[1]
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert first.stat().st_mtime_ns == (10**18 if names[0] < names[1] else 2 * 10**18)


@both
@pytest.mark.slow
def test_kept_checkout_is_not_written_again(site: Site) -> None:
    site.commit()
    site.checkout()
    before = {path: (status.st_ino, status.st_ctime_ns) for path, status in scan.walk(str(site.kept))}
    site.checkout()
    assert {path: (status.st_ino, status.st_ctime_ns) for path, status in scan.walk(str(site.kept))} == before
    assert site.warned == []


def no_export(*_: object) -> None:
    raise AssertionError("exported")


def alter(root: Path) -> None:
    """All kinds of changes, some of them of names that the store cannot hold."""
    (root / "etc/passwd").write_text("changed\n")
    for name in ("usr/lib/new\nline", "etc/fifo"):
        (root / name).unlink()
    (root / "usr/lib/new\nline").symlink_to("/etc/shadow")
    (root / "usr/lib/caf\udce9").write_text("another\n")
    (root / "usr/lib/hosts").unlink()
    (root / "usr/lib/hosts").write_bytes((root / "etc/hosts").read_bytes())
    os.link(root / "etc/passwd", root / "etc/passwd-")
    (root / "empty").rmdir()
    (root / "empty").write_text("a file\n")
    (root / "dir/below").mkdir(parents=True)
    (root / "dir/below/it@1 %41").write_text("in a new directory\n")
    (root / "etc/hosts").chmod(0o4711)
    os.chown(root / "etc/hosts", 1, 2)
    os.mknod(root / "etc/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.utime(root / "usr", ns=(1, 10**18))


@both
@pytest.mark.slow
def test_kept_checkout_of_another_version_gets_what_differs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways; what is the same stays as it is, and nothing is exported."""
    (site.root / "etc/same").write_text("same\n")
    first, _ = site.commit()
    before = site.rootimg(site.tree)
    alter(site.root)
    site.commit()
    site.checkout()
    after, number = site.rootimg(site.tree), (site.kept / "rootimg/etc/same").stat().st_ino
    monkeypatch.setattr(FsvsStore, "export", no_export)
    monkeypatch.setattr(kept, "MOST", 1)
    for version, wanted in ((Version(revision=first.number), before), (Version(), after)):
        found = site.checkout(version)
        assert site.rootimg(site.kept) == wanted
        assert found == site.checkout(version)
        assert (site.kept / "rootimg/etc/same").stat().st_ino == number
        assert sorted(path.name for path in site.kept.parent.iterdir()) == ["tree"]
    own = scan.scan(str(site.kept / "build_info/carried"))
    assert own.keys() == {entry.sha256 for path, entry in after.items() if path == "usr/lib/caf\udce9"}
    assert site.warned == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["rootimg/etc/same", "rootimg/etc/passwd", "rootimg/usr/lib"])
def test_kept_checkout_of_another_version_that_was_changed_is_made_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (site.root / "etc/same").write_text("same\n")
    first, _ = site.commit()
    wanted = site.rootimg(site.tree)
    (site.root / "etc/passwd").write_text("changed\n")
    site.commit()
    site.checkout()
    outside = site.top / "outside"
    shutil.copytree(site.kept / "rootimg", outside, symlinks=True, ignore=shutil.ignore_patterns("fifo"))
    there = scan.scan(str(outside))
    subprocess.run(["rm", "-r", str(site.kept / where)], check=True)
    (site.kept / where).symlink_to(outside / where.removeprefix("rootimg/"))
    monkeypatch.setattr(kept, "MOST", 1)
    site.checkout(Version(revision=first.number))
    assert site.rootimg(site.kept) == wanted
    assert scan.scan(str(outside)) == there
    assert sorted(path.name for path in site.kept.parent.iterdir()) == ["tree"]


@pytest.mark.slow
def test_fetched_contents_that_are_damaged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not what is wanted, or not there, is named; the checkout of the other version is gone or whole."""
    first, _ = site.commit()
    for name in ("etc/passwd", "etc/hosts"):
        (site.root / name).write_text(f"changed {name}\n")
    site.commit()
    monkeypatch.setattr(kept, "MOST", 1)
    for change, named in (("put", "rootimg/etc/passwd: sha256"), ("rm", "rootimg/etc/passwd")):
        site.checkout(Version(revision=first.number))
        if change == "put":
            put(site, "rootimg/etc/passwd", b"changed etc/passwD\n")
        else:
            url = f"{site.store.url(IMAGE, Version())}/rootimg/etc/passwd"
            subprocess.run(["svnmucc", "-m", "m", "rm", url], check=True)
        with pytest.raises(AvsError, match=named):
            site.checkout()
        assert not list(site.kept.parent.iterdir())


@pytest.mark.slow
def test_tree_of_a_build_becomes_the_checkout_and_comes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    revision, _ = site.commit()
    wanted, number = site.rootimg(site.tree), site.root.stat().st_ino
    site.kept.parent.mkdir()
    monkeypatch.setattr(FsvsStore, "export", no_export)
    site.checkout(build=lambda: nullcontext(site.tree))
    assert site.kept.is_dir()
    assert not site.kept.is_symlink()
    assert (site.kept / "rootimg").stat().st_ino == number
    assert not os.path.lexists(site.tree)
    site.checkout(build=lambda: nullcontext(site.tree))
    kept.give_back(site.tree, site.kept)
    assert sorted(path.name for path in site.top.iterdir()) == ["kept", "repo", "tree", "work"]
    assert not site.kept.exists()
    assert site.rootimg(site.tree) == wanted
    kept.give_back(site.tree, site.kept)
    assert site.commit() == (revision, False)


@pytest.mark.slow
def test_tree_of_a_build_that_is_another_one_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = site.commit()
    site.kept.parent.mkdir()
    (site.root / "etc/passwd").write_text("changed by hand\n")
    site.checkout(build=lambda: nullcontext(site.tree))
    assert site.tree.exists()
    site.commit()
    site.checkout(build=lambda: nullcontext(site.tree))
    assert kept.lent(site.tree, site.kept)
    monkeypatch.setattr(kept, "MOST", 1)
    site.checkout(Version(revision=first.number))
    kept.give_back(site.tree, site.kept)  # the checkout is of another version by now
    assert not os.path.lexists(site.tree)
    assert (site.kept / "rootimg/etc/passwd").read_text() == "'etc/passwd'\n"


def test_parts_of_a_tree_are_exported_once() -> None:
    found: Manifest = {"": Entry("", "dir", 0, 0, 0, 0)}
    del found[""]
    for path in ("a", "a/b", "a/c", "a/empty", "d", "d/e"):
        found[path] = Entry(path, "dir", 0o755, 0, 0, 0)
        for number in range(0 if path == "a/empty" else 5):
            name = f"{path}/{number}"
            found[name] = Entry(name, "file", 0o644, 0, 0, 0, size=10**6 if path == "a/b" else 1)
    for cores in (1, 2, 64):
        parts = fetching.parts(found, cores)
        for path, entry in found.items():
            above = path.rpartition("/")[0]
            mine = [
                part
                for part in parts
                if part.path == above or (part.whole and f"{path}/".startswith(f"{part.path}/" if part.path else ""))
            ]
            assert len(mine) == 1 or entry.type == "dir", (path, mine)
        assert [part.cost for part in parts] == sorted((part.cost for part in parts), reverse=True)
        assert "a/empty" not in {part.path for part in parts}
    assert fetching.parts({}, 2) == [fetching.Part(0, "", whole=True)]


CHANGES = {
    "content": "rootimg/etc/passwd: size, sha256, mtime",
    "same size and time": "rootimg/etc/passwd: sha256",
    "mode": "rootimg/etc/passwd: mode",
    "xattr": "rootimg/etc/passwd: xattrs",
    "time": "rootimg/etc/passwd: mtime",
    "more": "+rootimg/empty/more",
    "less": "-rootimg/usr/lib/hosts",
    "the manifest": "build_info/manifest: not the stored one",
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "named"), CHANGES.items(), ids=CHANGES.keys())
def test_kept_checkout_that_was_changed_is_named_and_made_anew(site: Site, change: str, named: str) -> None:
    site.commit()
    site.checkout()
    wanted = site.rootimg(site.kept)
    passwd = site.kept / "rootimg/etc/passwd"
    status = passwd.stat()
    if change == "content":
        passwd.write_text("x")
    elif change == "same size and time":
        passwd.write_text("'etc/passwD'\n")
        os.utime(passwd, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "mode":
        passwd.chmod(0o600)
    elif change == "xattr":
        os.setxattr(passwd, "user.more", b"1")
    elif change == "time":
        os.utime(passwd, ns=(0, status.st_mtime_ns + 1))
    elif change == "more":
        (site.kept / "rootimg/empty/more").touch()
    elif change == "less":
        (site.kept / "rootimg/usr/lib/hosts").unlink()
    else:
        text = site.kept / "build_info/manifest"
        text.write_text(text.read_text().replace("mode=0644", "mode=0645", 1))
    site.checkout()
    assert site.rootimg(site.kept) == wanted
    assert len(site.warned) == 1
    assert f"the checkout of trunk in {site.kept} was changed since, and is made anew: " in site.warned[0]
    assert named in site.warned[0]
    site.warned.clear()
    site.checkout()
    assert site.warned == []


@both
@pytest.mark.slow
def test_what_a_checkout_that_was_cut_off_left_is_removed(site: Site) -> None:
    site.commit()
    new = site.kept.with_name("tree.new")
    for name in ("tree.new", "tree.new.parts", "tree.fetched"):
        (new.with_name(name) / "half").mkdir(parents=True)
    site.checkout()
    assert [path.name for path in site.kept.parent.iterdir()] == ["tree"]
    assert site.rootimg(site.kept) == site.rootimg(site.tree)


def put(site: Site, path: str, data: bytes) -> None:
    """Change one file of the store's trunk."""
    (site.top / "data").write_bytes(data)
    url = f"{site.store.url(IMAGE, Version())}/{path}"
    subprocess.run(["svnmucc", "-m", "m", "put", str(site.top / "data"), url], check=True)


@pytest.mark.slow
def test_tampered_content_is_named_and_nothing_is_kept(site: Site) -> None:
    site.commit()
    put(site, "rootimg/etc/passwd", b"'etc/passwD'\n")
    with pytest.raises(AvsError, match="the checkout of trunk differs from its manifest in 1 path;") as caught:
        site.checkout()
    assert "rootimg/etc/passwd: sha256" in str(caught.value)
    assert list(site.kept.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["rm", "rootimg/etc/passwd"], "rootimg/etc/passwd"),
        (["rm", "rootimg/etc"], "rootimg/etc/hosts"),
        (
            ["propset", "svn:special", "*", "rootimg/etc/link"],
            "'rootimg/etc/link' is of type link, and file by its manifest",
        ),
        (["mkdir", "rootimg/more"], "+rootimg/more"),
        (["rm", "build_info/carried"], "rootimg/usr/lib/caf\\udce9"),
    ],
)
def test_tampered_tree_is_named_and_nothing_is_kept(site: Site, words: list[str], named: str) -> None:
    (site.root / "etc/link").write_text("link /etc/shadow")
    site.commit()
    words = [*words[:-1], f"{site.store.url(IMAGE, Version())}/{words[-1]}"]
    subprocess.run(["svnmucc", "-m", "m", *words], check=True)
    with pytest.raises(AvsError) as caught:
        site.checkout()
    assert named in str(caught.value)
    assert IMAGE.name in str(caught.value)
    assert not any(site.kept.parent.glob("tree*"))


def refused(site: Site, store: FsvsStore | None = None, target: Path | None = None) -> str:
    with pytest.raises(AvsError) as caught:
        trees.checkout_tree(
            store or site.store, IMAGE, Version(), target or site.top / "other/tree", site.warned.append
        )
    return str(caught.value)


@pytest.mark.slow
def test_damage_is_what_a_check_has_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that FSVS failed: the server may have died, a disk be full, the time be over."""
    site.store.prepare(IMAGE, "ann")
    conf = site.top / "repo/db/fsfs.conf"
    conf.write_text(conf.read_text().replace("compression = lz4", "compression = none"))  # or no bytes are found
    site.commit()
    assert site.store.check() == f"svnadmin verify {site.top}/repo"
    slow = site.top / "bin"
    slow.mkdir()
    (slow / "xargs").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "xargs").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
        text = refused(site, replace(site.store, runner=Runner(timeout=1)))
    assert "xargs did not end within 1 s" in text
    assert "damaged" not in text
    full = site.top / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(full)], check=True)
    try:
        text = refused(site, target=full / "tree")
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert "No space left on device" in text
    assert "damaged" not in text

    text = server_that_dies(site, slow)
    assert "damaged" not in text

    revision = site.top / "repo/db/revs/0/2"
    data = revision.read_bytes()
    position = data.index(b"K 6\npasswd\nV ") + 5
    revision.chmod(0o644)
    revision.write_bytes(data[:position] + b"P" + data[position + 1 :])
    assert "damaged in the store: rootimg/etc" in refused(site)
    with pytest.raises(DamageError, match=f"the store is damaged: svnadmin verify {site.top}/repo failed"):
        site.store.check()
    revision.write_bytes(data)
    (slow / "xargs").rename(slow / "svnadmin").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    with pytest.raises(AvsError, match="svnadmin did not end within") as caught:
        replace(site.store, runner=Runner(timeout=1)).check()
    assert not isinstance(caught.value, DamageError)


def server_that_dies(site: Site, programs: Path) -> str:
    """What a checkout says when svnserve is killed once the export begins."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    argv = [
        "svnserve",
        "-d",
        "--foreground",
        "-r",
        str(site.top),
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        str(port),
    ]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    (programs / "xargs").write_text(f'#!/bin/sh\nkill {server.pid}\nexec {shutil.which("xargs")} "$@"\n')
    store = replace(site.store, repository=f"svn://127.0.0.1:{port}/repo")
    path = os.environ["PATH"]
    try:
        while server.poll() is None:
            try:
                store.head(IMAGE)
                break
            except AvsError:
                time.sleep(0.05)
        os.environ["PATH"] = f"{programs}:{path}"
        return refused(site, store)
    finally:
        os.environ["PATH"] = path
        server.kill()
        server.wait()


@pytest.mark.slow
def test_damaged_manifest_is_named(site: Site) -> None:
    site.commit()
    put(site, "build_info/manifest", site.cat("build_info/manifest").replace(b"mode=0644", b"mode=0645", 1))
    with pytest.raises(AvsError, match="the stored manifest of trunk, is damaged"):
        site.checkout()
    put(site, "build_info/manifest", b"#mtree\n\xff\n")
    with pytest.raises(AvsError, match="the stored manifest of trunk, is damaged"):
        site.checkout()


@pytest.mark.slow
def test_damaged_manifest_of_the_newest_revision_does_not_stop_the_next(site: Site) -> None:
    """Whether somebody has committed it, or a disk has changed it: a checkout says what trunk holds, if there can be one."""
    site.store.prepare(IMAGE, "ann")
    conf = site.top / "repo/db/fsfs.conf"
    conf.write_text(conf.read_text().replace("compression = lz4", "compression = none"))  # or no bytes are found
    site.commit()
    put(site, "build_info/manifest", site.cat("build_info/manifest").replace(b"mode=0644", b"mode=0645", 1))
    revision, changed = site.commit()
    assert changed, "though the tree is the same: the newest revision is to have a manifest"
    assert len(site.warned) == 1
    text = "the stored manifest of revision 3, is damaged or not whole: it does not have the checksum that its last line names. Revision 3 stays as it is"
    assert text in site.warned.pop()
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert site.commit() == (revision, False)
    assert site.warned == []

    path = site.top / "repo/db/revs/0/2"  # the later ones are kept as differences from it
    data = path.read_bytes()
    position = data.index(b"./rootimg/etc/hosts type=")
    path.chmod(0o644)
    path.write_bytes(data[:position] + b":" + data[position + 1 :])
    with pytest.raises(AvsError) as caught:
        site.commit()
    assert "damaged in the store: build_info/manifest" in str(caught.value)
    url = site.store.url(IMAGE, Version())
    assert f"remove it from the newest revision with `svn rm -m damaged {url}`, and create with -b" in str(caught.value)
    site.warned.clear()
    subprocess.run(["svn", "rm", "-q", "-m", "damaged", url], check=True)
    assert site.commit()[1]
    site.checkout(target=site.top / "other/tree")
    assert site.warned == []


@pytest.mark.slow
def test_commit_on_one_without_a_manifest(site: Site) -> None:
    """Made by avs_image_mgr: what it holds is learned by a checkout, and only what changed is stored."""
    os.utime(site.root / "etc/hosts", ns=(1, 10**18))  # FSVS itself gives no time before 1970 back
    first, _ = site.commit()
    url = site.store.url(IMAGE, Version())
    (site.top / "report").write_text("as it was\n")
    subprocess.run(
        ["svnmucc", "-m", "bob; Image rebuild completed at some time\nm", "rm", f"{url}/build_info", "mkdir",
         f"{url}/build_info", "put", str(site.top / "report"), f"{url}/build_info/report"], check=True,
    )  # fmt: skip
    head = site.store.head(IMAGE)
    assert head is not None
    assert (head.number, head.author) == (first.number + 1, "bob")
    assert trees.stored_manifest(site.store, IMAGE, Version()) is None
    site.checkout()
    assert len(site.warned) == 1
    assert "has no manifest, so the checkout cannot be proven" in site.warned.pop()

    (site.root / "etc/passwd").write_text("changed\n")
    second, changed = site.commit()
    assert (changed, second.number) == (True, head.number + 1)
    log = subprocess.run(
        ["svn", "log", "-q", "-v", "-r", str(second.number), url], check=True, capture_output=True, text=True
    ).stdout
    paths = [line.split("trunk/", 1)[1] for line in log.splitlines() if "trunk/rootimg" in line]
    assert paths == ["rootimg/etc/passwd"]
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert sorted(path.name for path in site.top.iterdir() if path.name.startswith(".")) == []


@pytest.mark.slow
def test_what_a_killed_commit_left_beside_the_tree_goes(site: Site) -> None:
    for name in (".before.x/rootimg", ".plain.x/tree"):
        (site.top / name).mkdir(parents=True)
    (site.top / "work/fsvs.0123/conf").mkdir(parents=True)
    (site.top / "work/svnmucc.x").touch()
    site.commit()
    assert sorted(path.name for path in site.top.iterdir()) == ["repo", "tree", "work"]
    assert list((site.top / "work").iterdir()) == []


@pytest.mark.slow
def test_commit_on_one_that_others_changed_by_hand(site: Site) -> None:
    """Its manifest is of an earlier one, and says nothing of it: what it holds is learned by a checkout."""
    site.commit()
    put(site, "rootimg/etc/passwd", b"by hand\n")
    assert site.commit()[1], "it is not what the tree is, whatever the manifest says"
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert site.commit()[1] is False


@pytest.mark.slow
def test_attributes_that_the_file_system_loses_are_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def unkept(directory: Path) -> list[str]:
        looked.append(directory)
        return ["capabilities", "ACLs"]

    monkeypatch.setattr(restore, "unkept", unkept)
    site.commit("one")
    assert len(site.warned) == 1
    assert f"the file system of {site.tree} keeps no capabilities, ACLs: " in site.warned[0]
    # In the tree, what a FUSE file system leaves of a removed file for a moment would be stored.
    assert looked == [site.tree.parent]
    assert "put [paths] state on" in site.warned[0]


@both
@pytest.mark.slow
def test_sockets_are_left_out_and_said(site: Site) -> None:
    here = os.getcwd()
    os.chdir(site.root / "etc")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)
    site.commit()
    assert site.warned == [f"{IMAGE.name}: sockets are left out: rootimg/etc/socket"]
    found = site.rootimg(site.tree)
    del found["etc/socket"]
    site.checkout()
    assert site.rootimg(site.kept) == found
    assert site.commit()[1] is False


@pytest.mark.slow
def test_carried_content_of_a_commit_that_was_cut_off_is_removed(site: Site) -> None:
    carried = site.tree / "build_info/carried"
    carried.mkdir()
    (carried / "stale").write_text("x")
    (site.tree / "build_info/manifest").write_text("stale")
    site.commit()
    site.checkout()
    assert len(list((site.kept / "build_info/carried").iterdir())) == 2
    assert sorted(path.name for path in site.top.iterdir()) == ["kept", "repo", "tree", "work"]
    assert list((site.top / "work").iterdir()) == []


# -- the layout


def entry(path: str, kind: str) -> Entry:
    return Entry(path, kind, 0o644, 0, 0, 0, link="/etc/shadow" if kind == "link" else "")


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("kernel", "file"), ("initrd-stateless.gz", "file"), ("initrd\nx", "file"), ("rootimg", "dir"), ("addons", "dir"),
        ("addons/kvm", "dir file"), ("addons/kvm/rootimg", "dir"), ("addons/kvm/removed", "file"), ("addons/kvm/packages", "file"),
        ("build_info", "dir file"), ("build_info/report", "dir file"), ("build_info/inputs/files/a/b", "dir file"),
    ],
)  # fmt: skip
def test_layout(path: str, good: str) -> None:
    for kind in ("file", "dir", "link", "char", "block", "fifo"):
        found = {path: entry(path, kind)}
        if kind in good.split():
            layout.check(found, "it")
        else:
            with pytest.raises(AvsError, match=rf"^it: {path!a} is (a|a link to '/etc/shadow')".replace("\\", "\\\\")):
                layout.check(found, "it")


@pytest.mark.parametrize(
    "path", ["rootimg/kernel", "rootimg/build_info/x", "kernel.old", "addons/kvm/rootimg/kernel", "x"]
)
def test_layout_leaves_alone_what_is_the_images(path: str) -> None:
    layout.check({path: entry(path, "link")}, "it")
