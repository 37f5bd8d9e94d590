"""Whole trees into a store and out of it, proven: with the real programs on a repository of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xcat_avs import manifest, restore
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.image import OsImage
from xcat_avs.manifest import Entry, Manifest
from xcat_avs.store import Revision, Version, trees
from xcat_avs.store.fsvs import FsvsStore

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
        assert trees.carried(listed(**{name: kind})) == set(), kind


@pytest.mark.parametrize(
    "name", ["new\nline", "tab\t", "\x01", "\x1b[0m", "\x7f", "\r", "\udcff", "caf\udce9", "n" * 249, "é" * 125]
)
def test_names_that_are_carried(name: str) -> None:
    for kind in ("file", "link", "char", "block"):
        assert trees.carried(listed(**{name: kind})) == {name}, kind
        assert trees.carried(listed(d="dir", **{f"d/{name}": kind})) == {f"d/{name}"}
    assert trees.carried(listed(**{name: "dir"})) == (set() if len(name) > 100 else {name})


def test_all_below_a_carried_directory_is_carried() -> None:
    found = listed(**{"d\n": "dir", "d\n/a": "dir", "d\n/a/b": "file", "d\n.x": "file", "d": "dir", "d/x": "file"})
    assert trees.carried(found) == {"d\n", "d\n/a", "d\n/a/b", "d\n.x"}
    assert trees.carried(listed(**{"d": "dir", "d/\udcff": "dir", "d/\udcff/x": "file", "d/y": "file"})) == {
        "d/\udcff", "d/\udcff/x",
    }  # fmt: skip


def test_fifos_are_carried() -> None:
    assert trees.carried(listed(f="fifo", d="dir", **{"d/f": "fifo"})) == {"f", "d/f"}


def test_long_paths_are_carried() -> None:
    parts = ["d" * 199] * 16
    found = {"/".join(parts[:depth]): Entry("", "dir", 0o755, 0, 0, 0) for depth in range(1, 17)}
    assert {len(path) for path in trees.carried(found)} == {3199}
    assert trees.carried({"é" * 100 + "/" + path: entry for path, entry in found.items()}) != set()


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

    @property
    def tree(self) -> Path:
        return self.top / "tree"

    @property
    def root(self) -> Path:
        return self.tree / "rootimg"

    @property
    def store(self) -> FsvsStore:
        return FsvsStore(f"file://{self.top}/repo", self.top / "work", 60)

    @property
    def kept(self) -> Path:
        return self.top / "kept/tree"

    def commit(self, message: str = "m") -> tuple[Revision, bool]:
        return trees.commit_tree(self.store, IMAGE, self.tree, "ann", f"ann; {message}", self.warned.append)

    def checkout(self, version: Version | None = None, target: Path | None = None) -> Manifest:
        return trees.checkout_tree(self.store, IMAGE, version or Version(), target or self.kept, self.warned.append)

    def rootimg(self, top: Path) -> Manifest:
        return manifest.scan(str(top / "rootimg"))

    def cat(self, path: str) -> bytes:
        return self.store.read(IMAGE, Version(), path)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for program in ("svn", "svnmucc", "svnadmin", "fsvs"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Site(tmp_path)
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


@pytest.mark.slow
def test_unchanged_is_not_committed_and_gets_no_new_times(site: Site) -> None:
    first, _ = site.commit()
    manifests = manifest.scan(str(site.root))
    (site.tree / "build_info/report").write_text("built again\n")
    for path in site.root.rglob("*"):
        os.utime(path, follow_symlinks=False)
    assert site.commit() == (first, False)
    # A change brings the times of all that did not change back, and stores the new report.
    (site.root / "etc/passwd").write_text("changed\n")
    second, changed = site.commit()
    assert (changed, second.number) == (True, first.number + 1)
    found = manifest.scan(str(site.root))
    assert {path for path in found if found[path] != manifests[path]} == {"etc/passwd"}
    assert site.cat("build_info/report") == b"built again\n"
    site.checkout()
    assert site.rootimg(site.kept) == found


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


@pytest.mark.slow
def test_kept_checkout_is_not_written_again(site: Site) -> None:
    site.commit()
    site.checkout()
    before = {path: (status.st_ino, status.st_ctime_ns) for path, status in manifest.walk(str(site.kept))}
    site.checkout()
    assert {path: (status.st_ino, status.st_ctime_ns) for path, status in manifest.walk(str(site.kept))} == before
    assert site.warned == []


@pytest.mark.slow
def test_kept_checkout_of_another_version_is_made_anew_without_a_warning(site: Site) -> None:
    first, _ = site.commit()
    (site.root / "etc/passwd").write_text("changed\n")
    site.commit()
    site.checkout()
    site.checkout(Version(revision=first.number))
    assert (site.kept / "rootimg/etc/passwd").read_text() == "'etc/passwd'\n"
    assert site.warned == []
    assert sorted(path.name for path in site.kept.parent.iterdir()) == ["tree"]


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


@pytest.mark.slow
def test_what_a_checkout_that_was_cut_off_left_is_removed(site: Site) -> None:
    site.commit()
    new = site.kept.with_name("tree.new")
    (new / "half").mkdir(parents=True)
    site.checkout()
    assert not new.exists()
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
    with pytest.raises(AvsError, match="the checkout of trunk differs from its manifest in 1 paths") as caught:
        site.checkout()
    assert "rootimg/etc/passwd: sha256" in str(caught.value)
    assert list(site.kept.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["rm", "rootimg/etc/passwd"], "rootimg/etc/passwd"),
        (["rm", "rootimg/etc"], "rootimg/etc/hosts"),
        (["propset", "svn:special", "*", "rootimg/etc/passwd"], "is not parseable as a special"),
        (["mkdir", "rootimg/more"], "+rootimg/more"),
        (["rm", "build_info/carried"], "rootimg/usr/lib/caf\\udce9"),
    ],
)
def test_tampered_tree_is_named_and_nothing_is_kept(site: Site, words: list[str], named: str) -> None:
    site.commit()
    words = [*words[:-1], f"{site.store.url(IMAGE, Version())}/{words[-1]}"]
    subprocess.run(["svnmucc", "-m", "m", *words], check=True)
    with pytest.raises(AvsError) as caught:
        site.checkout()
    assert named in str(caught.value)
    assert IMAGE.name in str(caught.value)
    assert not any(site.kept.parent.glob("tree*"))


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
    monkeypatch.setattr(restore, "unkept", lambda directory: ["capabilities", "ACLs"])
    site.commit("one")
    assert len(site.warned) == 1
    assert f"the file system of {site.tree} keeps no capabilities, ACLs: " in site.warned[0]
    assert "put [paths] state on" in site.warned[0]


@pytest.mark.slow
def test_sockets_are_left_out_and_said(site: Site) -> None:
    import socket

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
