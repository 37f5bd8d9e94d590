"""The store by OSTree: what it refuses, finds and survives, beside what every store has to do."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.test_trees import IMAGE, Site
from xcat_avs.errors import AvsError, DamageError, NoStoreError, NotFoundError
from xcat_avs.store import engines, trees
from xcat_avs.store.ostree import reading, staging, variant
from xcat_avs.store.ostree.reading import place, plain
from xcat_avs.store.ostree.repository import Repository
from xcat_avs.store.ostree.store import OstreeStore
from xcat_avs.store.protocol import NewTag, Summary, Version
from xcat_avs.system.runner import Runner
from xcat_avs.tree import scan
from xcat_avs.tree.manifest import Entry

LINE = b"an unmistakable line of text\n"


def ostree(path: Path, *words: str) -> str:
    done = subprocess.run(["ostree", words[0], f"--repo={path}", *words[1:]], capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    return done.stdout.strip()


# -- GVariant


def test_what_ostree_writes_is_read() -> None:
    """Bytes of a commit that `ostree show --raw` prints so."""
    assert variant.load("{sv}", bytes.fromhex("6176732e61000000 6200007306")) == ("avs.a", "b")
    assert variant.load("(uu)", struct.pack(">II", 1, 2)) == (1, 2)
    assert variant.load("as", b"a\0bc\0\x02\x05") == ["a", "bc"]
    assert variant.load("a(say)", b"x\0\x01\x02\x02\x05") == [("x", b"\x01\x02")]
    assert variant.load("a(say)", b"") == []
    assert variant.load("au", struct.pack(">II", 1, 2)) == [1, 2]


@given(st.binary(max_size=80), st.sampled_from(["(a{sv}aya(say)sstayay)", "(a(say)a(sayay))", "as", "v", "a{sv}"]))
def test_anything_else_is_an_error_of_one_kind(data: bytes, signature: str) -> None:
    try:
        variant.load(signature, data)
    except (ValueError, IndexError, RecursionError):
        pass


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("2026-01-01", "2026-01-01"), ("x86_64", "x86_64"), ("a+b", "a_-2Bb"), ("a_-2Bb", "a_-5F-2Bb"), ("é", "_-C3_-A9"), ("_", "_"),
     ("é" * 60, "_-C3_-A9" * 12 + "_-C3_--" + hashlib.sha256(("é" * 60).encode()).hexdigest()), ("a" * 200, "a" * 200)],
)  # fmt: skip
def test_names_in_refs(name: str, wanted: str) -> None:
    assert plain(name) == wanted


@given(st.lists(st.text("a_-+.2B\u00e9", max_size=6), min_size=2, max_size=2, unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    assert plain(names[0]) != plain(names[1])


@pytest.mark.parametrize(
    "url", ["ostree:", "ostree:/", "ostree:///", "ostree:relative", "ostree://host/path", "ostree:ftp://x/y"]
)
def test_a_url_that_is_no_directory(url: str, tmp_path: Path) -> None:
    with pytest.raises(AvsError, match="an OSTree repository is ostree:/DIR"):
        engines.store(url, tmp_path, Runner(), str)


def test_directories_of_stores() -> None:
    assert engines.directory("ostree:/a%20b/c") == engines.directory("ostree:///a b/c") == Path("/a b/c")
    assert engines.directory("file:///a/c") == Path("/a/c")
    assert engines.directory("https://host/a") is None


def test_shares_of_a_first_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each path in one of them, whole directories together, and about as much in each."""
    monkeypatch.setattr(staging, "FEW", 3)
    sizes = {
        "kernel": 50,
        "rootimg/etc/a": 1,
        "rootimg/usr/lib/x/big": 900,
        "rootimg/usr/lib/y": 1,
        "rootimg/usr/share/z/q": 800,
    }
    found = {path: Entry(path, "file", 0o644, 0, 0, 0, size * 1000) for path, size in sizes.items()}
    for path in sizes:
        for parent in list(Path(path).parents)[:-1]:
            found[str(parent)] = Entry(str(parent), "dir", 0o755, 0, 0, 0)
    shares = staging._shares(found, 2)
    assert sorted(map(sorted, shares)) == [["kernel", "rootimg/etc/a", "rootimg/usr/share"], ["rootimg/usr/lib"]]
    assert staging._shares({}, 4) == [set()]


# -- with a repository


@pytest.fixture
def site(tmp_path: Path) -> Site:
    if shutil.which("ostree") is None:
        pytest.skip("not installed: ostree")
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Site(tmp_path, engine="ostree")
    (made.tree / "build_info/inputs").mkdir(parents=True)
    (made.tree / "build_info/inputs/recipe.conf").write_text("steps\n")
    (made.root / "etc").mkdir(parents=True)
    (made.root / "usr/bin").mkdir(parents=True)
    (made.root / "etc/passwd").write_bytes(LINE * 40)
    (made.root / "usr/bin/su").write_text("su")
    (made.root / "usr/bin/su").chmod(0o4755)
    (made.root / "usr/bin/copy").write_text("su")
    (made.root / "usr/bin/copy").chmod(0o4755)
    os.mknod(made.root / "null", 0o20666, os.makedev(1, 3))
    os.symlink(b"\xff", made.root / "raw")
    return made


def the(site: Site) -> OstreeStore:
    assert isinstance(site.store, OstreeStore)
    return site.store


def refused(site: Site, kind: type[AvsError] = AvsError) -> str:
    with pytest.raises(kind) as caught:
        site.checkout(target=site.top / "other/tree")
    assert not (site.top / "other/tree").exists()
    assert IMAGE.name in str(caught.value) or str(site.top) in str(caught.value)
    return str(caught.value)


def change(site: Site, text: str = "changed\n") -> None:
    (site.root / "etc/passwd").write_text(text)


slow = pytest.mark.slow


@slow
def test_what_a_commit_says(site: Site) -> None:
    (site.tree / "build_info/provenance.json").write_text('{"user": "ann", "bytes": 5}\n')
    site.commit("zażółć %s $HOME `id`\n  two  \n\nthree")
    change(site)
    site.commit("second")
    store = the(site)
    store.tag(IMAGE, NewTag("t+1", 1, "bob", "bob; Tag\nwhy", "bob, uid 7", signature="of 1\n--\n"))
    first, second = reversed(store.log(IMAGE))
    assert (first.number, second.number, first.author) == (1, 2, "ann")
    assert first.message == "ann; zażółć %s $HOME `id`\n  two  \n\nthree"
    (tag,) = store.tags(IMAGE)
    assert (tag.name, tag.source, tag.author, tag.message, tag.real) == ("t+1", 1, "bob", "bob; Tag\nwhy", "bob, uid 7")
    assert first.date < second.date < tag.date
    assert tag.signature == "of 1\n--\n"
    assert store.newest_tags([IMAGE]) == {IMAGE.name: "t+1"}
    assert store.summaries([IMAGE]) == {IMAGE.name: Summary(2, second.date, bytes=5, tags=1, newest="t+1")}
    assert store.provenance(IMAGE)[1] == {"user": "ann", "bytes": 5}
    # As ostree itself reads it.
    path, name = site.top / "repo", place(IMAGE, Version(tag="t+1"))
    assert ostree(path, "show", "--print-metadata-key=avs.author", name) == "'bob'"
    assert ostree(path, "rev-parse", f"{place(IMAGE)}/trunk^") == ostree(
        path, "rev-parse", f"{place(IMAGE)}/revisions/1"
    )
    assert "zażółć" in ostree(path, "log", f"{place(IMAGE)}/trunk")
    assert "ref-binding" not in ostree(path, "show", "--raw", name)
    wanted = hashlib.sha256(store.read(IMAGE, Version(tag="t+1"), "build_info/manifest")).hexdigest()
    assert ostree(path, "show", "--print-metadata-key=avs.manifest", name) == f"'{wanted}'"
    with pytest.raises(AvsError, match="tag t\\+1 exists already"):
        store.tag(IMAGE, NewTag("t+1", 2, "eve", "x", real=""))
    with pytest.raises(NotFoundError, match="has no revision 3"):
        store.revision(IMAGE, 3)
    with pytest.raises(NotFoundError):
        store.revision(IMAGE, 0)


@slow
def test_an_unchanged_tree_starts_no_ostree_and_a_change_stores_only_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.commit()
    repository = site.top / "repo"
    before = {path.name for path in (repository / "objects").rglob("*.file")}
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        assert site.commit() == (the(site).head(IMAGE), False)
    for path in site.root.rglob("*"):
        os.utime(path, follow_symlinks=False)
    (site.root / "usr/bin/su").chmod(0o755)
    os.unlink(site.root / "null")
    assert site.commit()[1]
    new = {path.name for path in (repository / "objects").rglob("*.file")} - before
    assert len(new) == 2, "su of another mode, and the manifest"
    assert (site.root / "usr/bin/copy").stat().st_mode & 0o7777 == 0o4755
    assert the(site).check() == f"ostree fsck --repo={repository}", "a file of the repository was changed in place"
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    site.checkout(Version(revision=1))
    assert (site.kept / "rootimg/usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert sorted(path.name for path in (repository / "avs").iterdir()) == ["lock"]


@slow
def test_a_first_commit_in_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "FEW", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    for name, mode in (("etc", 0o750), ("usr", 0o711), ("usr/bin", 0o700)):
        (site.root / name).chmod(mode)
    os.chown(site.root / "usr", 7, 8)
    site.commit()
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    target = site.top / "plain"
    target.mkdir()
    the(site).export(IMAGE, Version(), target)
    listed = {
        path: (entry.mode, entry.uid, entry.gid, entry.sha256)
        for path, entry in scan.scan(str(target / "rootimg")).items()
    }
    wanted = {path: (entry.mode, entry.uid, entry.gid, entry.sha256) for path, entry in site.rootimg(site.tree).items()}
    assert wanted.items() - listed.items() == {item for item in wanted.items() if item[0] in ("null", "raw")}


@slow
def test_a_tree_on_another_file_system_is_copied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.commit()
    memory = site.top / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(memory)], check=True)
    try:
        subprocess.run(["cp", "-a", str(site.tree), str(memory)], check=True)
        (memory / "tree/rootimg/etc/shadow").write_text("s")
        (memory / "tree/rootimg/etc/shadow").chmod(0o640)
        os.chown(memory / "tree/rootimg/etc/shadow", 0, 42)
        os.symlink("shadow", memory / "tree/rootimg/etc/link")
        os.chown(memory / "tree/rootimg/etc/link", 7, 8, follow_symlinks=False)
        trees.commit_tree(the(site), IMAGE, memory / "tree", "ann", "m", site.warned.append)
        wanted = scan.scan(str(memory / "tree/rootimg"))
    finally:
        subprocess.run(["umount", str(memory)], check=True)
    site.checkout()
    assert site.rootimg(site.kept) == wanted
    site.store.check()


@slow
def test_somebody_else_has_committed_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.commit()
    change(site, "mine\n")
    theirs = site.top / "theirs/tree"
    shutil.copytree(site.tree, theirs, symlinks=True, ignore=lambda *_: {"null"})
    head = reading.Reading.head

    def late(store: OstreeStore, image: object) -> object:
        found = head(store, IMAGE)
        monkeypatch.setattr(reading.Reading, "head", head)
        trees.commit_tree(store, IMAGE, theirs, "bob", "bob; theirs", site.warned.append)
        return found

    monkeypatch.setattr(reading.Reading, "head", late)
    with pytest.raises(AvsError, match=r"somebody else has committed to .* meanwhile") as caught:
        site.commit("mine")
    assert "with -b resumes the build" in str(caught.value)
    assert the(site).log(IMAGE)[0].message == "bob; theirs"
    site.commit("mine")
    assert [revision.message for revision in the(site).log(IMAGE)] == ["ann; mine", "bob; theirs", "ann; m"]


@slow
def test_commits_at_once_wait_for_each_other(site: Site) -> None:
    """Of two images into one store; and nobody sees half a commit."""
    other = replace(
        IMAGE, name=IMAGE.name.replace("prod", "test"), attributes={**IMAGE.attributes, "profile": "example.test"}
    )
    shutil.copytree(site.tree, site.top / "second/tree", symlinks=True, ignore=lambda *_: {"null"})
    the(site).prepare(IMAGE, "ann")
    done: list[object] = []
    threads = [
        threading.Thread(
            target=lambda image=image, tree=tree: done.append(
                trees.commit_tree(the(site), image, tree, "ann", "m", done.append)
            )
        )
        for image, tree in ((IMAGE, site.tree), (other, site.top / "second/tree"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 2, done
    assert the(site).check()
    for image in (IMAGE, other):
        trees.checkout_tree(the(site), image, Version(), site.top / image.name / "tree", site.warned.append)


# -- interrupted


@slow
def test_a_machine_that_went_down_in_a_commit(site: Site) -> None:
    """What no version has yet may be half on the disk: it goes before it is taken for what its name says."""
    site.commit()
    repository = site.top / "repo"
    orphan = site.top / "orphan"
    orphan.mkdir()
    (orphan / "f").write_text("of a commit that was interrupted\n")
    os.chmod(orphan / "f", 0o644)
    ostree(repository, "commit", "--orphan", "--no-bindings", f"--tree=dir={orphan}")
    (rotten,) = [
        path
        for path in (repository / "objects").rglob("*.file")
        if b"interrupted" in (b"" if path.is_symlink() else path.read_bytes())
    ]
    rotten.write_bytes(b"")
    (repository / "avs/lock").write_text("another boot\n")
    (site.root / "f").write_text("of a commit that was interrupted\n")
    os.chmod(site.root / "f", 0o644)
    assert site.commit()[1]
    assert (repository / "avs/lock").read_text() == ""
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    site.checkout(Version(revision=1))


@slow
@pytest.mark.parametrize("point", ["objects", "revision"])
def test_a_commit_that_ends_before_trunk_moves(site: Site, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    site.commit()
    change(site)
    set_ref = Repository.set_ref

    def fail(self: Repository, name: str, sum: str) -> None:
        if point == "objects" or name.endswith("trunk"):
            raise KeyboardInterrupt
        set_ref(self, name, sum)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "set_ref", fail)
        with pytest.raises(KeyboardInterrupt):
            site.commit("lost")
    assert [revision.number for revision in the(site).log(IMAGE)] == [1]
    with pytest.raises(NotFoundError):
        the(site).revision(IMAGE, 2)
    change(site, "another\n")
    assert site.commit("kept")[0].number == 2
    assert [revision.message for revision in the(site).log(IMAGE)] == ["ann; kept", "ann; m"]
    site.checkout()
    assert (site.kept / "rootimg/etc/passwd").read_text() == "another\n"


@slow
def test_what_somebody_has_mounted_below_a_checkout_stays_where_it_is(site: Site) -> None:
    site.commit()
    change(site)
    site.commit()
    site.checkout(Version(revision=1))
    point = site.kept / "rootimg/usr"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "somebody", str(point)], check=True)
    try:
        (point / "precious").touch()
        with pytest.raises(AvsError, match="mounted below it"):
            site.checkout()
        assert (point / "precious").exists()
    finally:
        subprocess.run(["umount", str(point)], check=True)
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)


# -- bad inputs


def spoil_config(old: str, new: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        text = (path / "config").read_text()
        assert old in text
        (path / "config").write_text(text.replace(old, new))

    return act


def become_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def become_other(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()
    (path / "precious").write_text("x")


def lose(path: Path) -> None:
    shutil.rmtree(path)


UNFIT: dict[str, tuple[Callable[[Path], None], str]] = {
    "archive": (
        spoil_config("mode=bare", "mode=archive-z2"),
        "it is of mode archive-z2, which is for other machines to read by http",
    ),
    "for users": (
        spoil_config("mode=bare", "mode=bare-user-only"),
        "which does not keep owners and attributes; `ostree init --mode=bare`",
    ),
    "newer": (
        spoil_config("repo_version=1", "repo_version=2"),
        "it is of version 2, and this avsimage knows version 1",
    ),
    "no configuration": (spoil_config("[core]", "["), "config: it is no configuration of OSTree"),
    "file": (become_file, "is a file, and no directory with an OSTree repository"),
    "other things": (become_other, "holds other things, and no OSTree repository"),
}


@slow
@pytest.mark.parametrize(("act", "text"), UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_repository(site: Site, act: Callable[[Path], None], text: str) -> None:
    the(site).prepare(IMAGE, "ann")
    path = site.top / "repo"
    act(path)
    before = path.read_bytes() if path.is_file() else sorted(path.rglob("*"))
    for action in (site.commit, lambda: the(site).head(IMAGE)):
        with pytest.raises(AvsError) as caught:
            action()
        assert text in str(caught.value)
        assert f"the store ostree:{path} cannot be used" in str(caught.value)
    assert (path.read_bytes() if path.is_file() else sorted(path.rglob("*"))) == before


@slow
def test_a_store_that_is_gone_is_no_empty_one(site: Site) -> None:
    with pytest.raises(NoStoreError, match="there is no store yet at ostree:"):
        the(site).head(IMAGE)
    site.commit()
    lose(site.top / "repo")
    store = OstreeStore(f"ostree:{site.top}/repo", evidence=lambda: "a tag in the journal")
    for action in (lambda: store.head(IMAGE), lambda: store.tags(IMAGE), lambda: store.prepare(IMAGE, "ann")):
        with pytest.raises(NoStoreError, match="and there was one: a tag in the journal"):
            action()
    store.prepare(IMAGE, "ann", anew=True)
    assert store.head(IMAGE) is None


@slow
def test_ostree_that_is_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(AvsError, match="the program ostree is not installed; it is in the package ostree"):
        the(site).prepare(IMAGE, "ann")
    assert sorted(path.name for path in site.top.iterdir()) == ["tree"]


@slow
def test_a_repository_made_by_hand_is_taken(site: Site) -> None:
    ostree(site.top / "repo", "init", "--mode=bare")
    assert the(site).identity() == ""
    site.commit()
    assert len(the(site).identity()) == 36


def forge(site: Site, changes: dict[str, str | None], tree: Path | None = None) -> None:
    """Have trunk, and its revision, name a commit that ostree made of other things."""
    store, repository = the(site), site.top / "repo"
    true = store.files.commit(store.files.ref(place(IMAGE, Version())), "it")
    meta = {key: value for key, value in {**true.meta, **changes}.items() if value is not None}
    what = f"--tree=dir={tree}" if tree else f"--tree=ref={true.sum}"
    words = ["--orphan", "--no-bindings", *(f"--add-metadata-string={key}={value}" for key, value in meta.items())]
    sum = ostree(repository, "commit", *words, what)
    for name in ("trunk", "revisions/1"):
        store.files.set_ref(f"{place(IMAGE)}/{name}", sum)


@slow
def test_refs_of_others(site: Site) -> None:
    site.commit()
    forge(site, {"avs.image": None})
    assert "is a commit that avsimage has not made" in refused(site)
    forge(site, {"avs.image": "netboot/rocky9.4/x86_64/example.test"})
    assert "is a commit that avsimage has not made" in refused(site)


@slow
def test_a_manifest_that_is_missing_or_anothers(site: Site) -> None:
    site.commit()
    other = site.top / "copy"
    shutil.copytree(site.tree, other, symlinks=True, ignore=lambda *_: {"null", "raw"})
    text = other / "build_info/manifest"
    text.write_text(text.read_text().replace("mode=0644", "mode=0645", 1))
    forge(site, {}, other)
    assert "build_info/manifest of trunk is damaged, or that of another version" in refused(site, DamageError)
    text.unlink()
    forge(site, {}, other)
    assert "trunk has no manifest, so it is not as avsimage has stored it" in refused(site, DamageError)


@slow
def test_other_contents_than_the_manifest_says(site: Site) -> None:
    site.commit()
    other = site.top / "copy"
    shutil.copytree(site.tree, other, symlinks=True, ignore=lambda *_: {"null", "raw"})
    (other / "rootimg/etc/passwd").write_bytes(LINE * 39)
    forge(site, {}, other)
    assert "rootimg/etc/passwd: size, sha256" in refused(site)


@slow
def test_what_is_forgotten(site: Site) -> None:
    """A revision between two others, and only what it alone has; nothing at all where others keep history there."""
    for number in range(3):
        change(site, f"{number}\n" * 5000)
        site.commit()
    store, repository = the(site), site.top / "repo"
    store.tag(IMAGE, NewTag("t1", 1, "ann", "m", real=""))
    own = object_of(site, "rootimg/usr/bin/su"), object_of(site, "rootimg/etc/passwd")
    second = store.files.commit(store.files.ref(place(IMAGE, Version(revision=2))), "it")
    gone = store.files.object(store.files.find(second, "rootimg/etc/passwd").sum, "file")  # type: ignore[union-attr]
    ostree(repository, "refs", "--create=other/branch", second.sum)
    with pytest.raises(AvsError, match=r"has refs of others \(other/branch\), whose history would go as well"):
        store.forget(IMAGE, [Version(revision=2)])
    ostree(repository, "refs", "--delete", "other/branch")
    wanted = store.forget(IMAGE, [Version(revision=2)], dry_run=True)
    assert gone.exists()
    assert store.forget(IMAGE, [Version(revision=2)]) == wanted
    assert wanted is not None
    assert 10_000 <= wanted < 60_000
    assert (gone.exists(), *(path.exists() for path in own)) == (False, True, True)
    assert [revision.number for revision in store.log(IMAGE)] == [3, 1]
    assert store.check()
    for version in (Version(), Version(tag="t1"), Version(revision=1)):
        site.checkout(version)
    change(site)
    assert site.commit()[0].number == 4
    long = ["é" * 100, "é" * 99 + "+"]  # their names in OSTree would be too long for a file
    for name in long:
        store.tag(IMAGE, NewTag(name, 1, "ann", "m", real=""))
    assert sorted(tag.name for tag in store.tags(IMAGE)) == sorted(["t1", *long])
    site.checkout(Version(tag=long[0]))
    store.forget(IMAGE, [Version(tag=name) for name in ("t1", *long)])
    assert store.tags(IMAGE) == []
    assert store.forget(IMAGE, []) == 0


# -- damage


def object_of(site: Site, path: str) -> Path:
    store = the(site)
    commit = store.files.commit(store.files.ref(place(IMAGE, Version())), "it")
    if not path:
        return store.files.object(commit.sum, "commit")
    item = store.files.find(commit, path)
    assert item is not None
    return store.files.object(item.sum, "dirtree" if item.meta else "file")


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def paths_of(site: Site) -> dict[Path, set[str]]:
    """Object -> the paths of trunk whose content, names, or owner and mode it holds; the commit is of the path trunk."""
    files = the(site).files
    commit = files.commit(files.ref(place(IMAGE, Version())), "it")
    found: dict[Path, set[str]] = {files.object(commit.sum, "commit"): {"trunk"}}
    found[files.object(commit.tree, "dirtree")] = found[files.object(commit.top, "dirmeta")] = {""}
    for item in files.walk(commit.tree):
        for sum, kind in ((item.sum, "dirtree" if item.meta else "file"), (item.meta, "dirmeta")):
            if sum:
                found.setdefault(files.object(sum, kind), set()).add(item.path)
    return found


@slow
def test_a_flipped_bit_in_any_object(site: Site) -> None:
    """It is found, and named by path, before anything is kept, and by the check of the whole repository.

    But where the manifest brings back what it changes, as owner and mode of a directory.
    """
    site.commit()
    wanted, chance = site.rootimg(site.tree), random.Random(12)
    objects = paths_of(site)
    for number, (path, names) in enumerate(objects.items()):
        if path.is_symlink():
            continue
        data = path.read_bytes()
        flip(path, chance.randrange(len(data)))
        target = site.top / f"other{number}/tree"
        try:
            site.checkout(target=target)
        except AvsError as err:
            said = str(err)
            assert any(name in said for name in names), (names, said)
            assert not target.exists()
        else:
            assert path.suffix == ".dirmeta", (names, path)
            assert site.rootimg(target) == wanted
        with pytest.raises(DamageError) as caught:
            the(site).check()
        assert f"the store is damaged: ostree fsck --repo={site.top}/repo failed" in str(caught.value)
        assert any(name in str(caught.value) for name in names), (names, str(caught.value))
        path.write_bytes(data)
    assert the(site).check()


@slow
def test_an_object_that_is_gone_is_named(site: Site) -> None:
    site.commit()
    object_of(site, "rootimg/etc/passwd").unlink()
    assert "damaged in the store: rootimg/etc/passwd" in refused(site, DamageError)
    with pytest.raises(DamageError):
        the(site).check()


@slow
@pytest.mark.parametrize("text", ["", "x\n", "0" * 64 + "\n", "../../etc/passwd\n"])
def test_a_damaged_ref(site: Site, text: str) -> None:
    site.commit()
    (site.top / "repo/refs/heads" / place(IMAGE) / "trunk").write_text(text)
    for action in (site.commit, site.checkout):
        with pytest.raises(DamageError):
            action()


@slow
def test_a_damaged_manifest_of_the_newest_does_not_stop_the_next(site: Site) -> None:
    site.commit()
    flip(object_of(site, "build_info/manifest"))
    assert site.commit()[0].number == 2
    assert "is damaged, or that of another version. Revision 1 stays as it is" in site.warned.pop()
    site.checkout()
    assert site.rootimg(site.kept) == site.rootimg(site.tree)
    assert site.commit()[1] is False


# -- a hostile repository


def tuple_of(*parts: bytes) -> bytes:
    """A GVariant tuple of parts that vary in size."""
    ends, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        ends.append(at)
    return b"".join(parts) + bytes(reversed(ends))


def array_of(*parts: bytes) -> bytes:
    ends, at = [], 0
    for part in parts:
        at += len(part)
        ends.append(at)
    width = 1 if at + len(ends) < 256 else 2
    return b"".join(parts) + b"".join(end.to_bytes(width, "little") for end in ends)


def put_object(repository: Path, data: bytes, kind: str) -> bytes:
    sum = hashlib.sha256(data).hexdigest()
    path = repository / "objects" / sum[:2] / f"{sum[2:]}.{kind}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return bytes.fromhex(sum)


def plant(site: Site, names: list[str]) -> None:
    """Have the top directory of trunk hold files of these names, all of one content, and a directory for one that ends in /."""
    repository, store = site.top / "repo", the(site)
    true = store.files.commit(store.files.ref(place(IMAGE, Version())), "it")
    files, _ = store.files.directory(store.files.find(true, "rootimg/etc").sum, "")  # type: ignore[union-attr]
    content = bytes.fromhex(files[0].sum)
    inner = put_object(repository, tuple_of(array_of(tuple_of(b"x\0", content)), b""), "dirtree")
    listed = array_of(*(tuple_of(name.encode() + b"\0", content) for name in names if not name.endswith("/")))
    below = array_of(
        *(tuple_of(name[:-1].encode() + b"\0", inner, bytes.fromhex(true.top)) for name in names if name.endswith("/"))
    )
    top = put_object(repository, tuple_of(listed, below), "dirtree")
    path = store.files.object(true.sum, "commit")
    data = path.read_bytes().replace(bytes.fromhex(true.tree), top)
    sum = put_object(repository, data, "commit").hex()
    for name in ("trunk", "revisions/1"):
        store.files.set_ref(f"{place(IMAGE)}/{name}", sum)


@slow
@pytest.mark.parametrize(
    "names", [["../evil"], [".."], ["../"], ["a/b"], ["/etc/evil"], ["."], [""], ["link", "link/"], ["same", "same"]]
)
def test_names_that_lead_elsewhere(site: Site, names: list[str]) -> None:
    site.commit()
    plant(site, names)
    target = site.top / "other"
    target.mkdir()
    with pytest.raises(DamageError, match=r"holds a path that leads elsewhere|holds a name twice"):
        the(site).export(IMAGE, Version(), target)
    assert list(target.iterdir()) == []
    assert not list(site.top.rglob("evil*"))
    refused(site)


@slow
def test_a_tag_by_the_name_of_another(site: Site) -> None:
    site.commit()
    store = the(site)
    store.tag(IMAGE, NewTag("t1", 1, "ann", "m", real=""))
    store.files.set_ref(place(IMAGE, Version(tag="t2")), store.files.ref(place(IMAGE, Version(tag="t1"))))
    with pytest.raises(AvsError, match=r"tags/t2 in the store .* is that of 't1'"):
        store.tags(IMAGE)
