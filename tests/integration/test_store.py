"""What goes into the store comes out of it, and only what changed goes in."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import wait_until

from integration.conftest import ENGINES, GID, UID, both, make_source
from integration.harness import (
    ARCH,
    OSVERS,
    PROFILE,
    Installation,
    beside,
    copy,
    difference,
    look,
    output,
    refuse_warning,
    remove,
    served_set,
)
from xcat_avs.store.trees import commit_tree

pytestmark = pytest.mark.slow

NOW = 1_700_000_000_000_000_000


def commit(installation: Installation, tree: Path, message: str = "m") -> bool:
    """Commit a tree without a build around it; whether that made a revision."""
    (tree / "build_info").mkdir(exist_ok=True)
    store, image = installation.store(), installation.image()
    store.prepare(image, "tester")
    return commit_tree(store, image, tree, "tester", f"tester; {message}\n{time.monotonic_ns()}", refuse_warning)[1]


def plain_recipe(installation: Installation) -> None:
    """Nothing changes the tree on its way from the source to the store."""
    installation.recipe("prepare_image_directory", "generate_image")


# -- what counts as a change


@both
def test_change_of_same_size_and_time_is_stored(installation: Installation, source: Path, tmp_path: Path) -> None:
    value = source / "rootimg/etc/value"
    value.write_text("1\n")
    os.utime(value, ns=(NOW, NOW))
    plain_recipe(installation)
    installation.create(source)
    first = installation.youngest()

    value.write_text("2\n")
    os.utime(value, ns=(NOW, NOW))
    result = installation.create(source)

    assert f"Stored as revision {first + 1} of" in result.stdout
    assert (installation.checkout(tmp_path / "out") / "etc/value").read_text() == "2\n"


@both
def test_changes_within_a_running_second_are_stored(installation: Installation, source: Path, tmp_path: Path) -> None:
    """As fast as commits can follow each other, with times as the clock gives them."""
    tree = copy(source, tmp_path / "tree")
    for number in range(8):
        (tree / "rootimg/etc/value").write_text(f"{number}\n")
        assert commit(installation, tree), f"change {number} made no revision"
    assert (installation.checkout(tmp_path / "out") / "etc/value").read_text() == "7\n"


def touch_all(root: Path) -> None:
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            os.utime(os.path.join(directory, name), follow_symlinks=False)


@both
def test_change_of_times_alone_is_not_stored(installation: Installation, source: Path) -> None:
    installation.create(source)
    before = installation.youngest()
    touch_all(source / "rootimg")
    result = installation.create(source)
    assert f"Nothing changed since revision {before} of {installation.trunk()}: no new revision" in result.stdout
    assert installation.youngest() == before


def test_times_of_unchanged_paths_stay_out_of_a_commit(installation: Installation, source: Path) -> None:
    """A rebuild has new times everywhere; only what really changed may be stored."""
    plain_recipe(installation)
    installation.create(source)
    touch_all(source / "rootimg")
    (source / "rootimg/etc/passwd").write_text("root:x:0:0:changed:/root:/bin/bash\n")
    installation.create(source)
    changed = output(["svnlook", "changed", str(installation.repository)]).split("\n")
    paths = sorted(line[4:].split("/trunk/", 1)[1] for line in changed if line and "build_info" not in line)
    # Trunk itself has the property that says which revision this one follows.
    assert [path for path in paths if path and not path.endswith("/")] == ["rootimg/etc/passwd"]


def test_change_of_definition_alone_is_stored(installation: Installation, source: Path) -> None:
    installation.create(source)
    before = installation.youngest()
    installation.define(PROFILE, osname="Linux")
    assert f"Stored as revision {before + 1}" in installation.create(source).stdout
    assert "no new revision" in installation.create(source).stdout


def test_change_of_pkglist_alone_is_stored(installation: Installation, source: Path, tmp_path: Path) -> None:
    pkglist = tmp_path / "a.pkglist"
    pkglist.write_text("bash\n")
    installation.define(PROFILE, pkglist=str(pkglist))
    installation.create(source)
    before = installation.youngest()
    pkglist.write_text("bash\n# a comment\n")
    assert f"Stored as revision {before + 1}" in installation.create(source).stdout
    stored = output(["svn", "cat", f"{installation.trunk()}/build_info/inputs/files{pkglist}"])
    assert stored == "bash\n# a comment\n"


def test_another_message_alone_is_no_change(installation: Installation, source: Path) -> None:
    installation.create(source, "-m", "one", "-u", "ann")
    before = installation.youngest()
    assert "no new revision" in installation.create(source, "-m", "two", "-u", "bob").stdout
    assert installation.youngest() == before


# -- round trips


def _chown(name: str, uid: int, gid: int) -> Callable[[Path], None]:
    return lambda root: os.chown(root / name, uid, gid, follow_symlinks=False)


def _chmod(name: str, mode: int) -> Callable[[Path], None]:
    return lambda root: (root / name).chmod(mode)


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        remove(root / name)
        make(root / name)

    return change


def _rename(name: str, new: str) -> Callable[[Path], None]:
    return lambda root: os.rename(root / name, root / new)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "below").write_text("below\n")


def _device(kind: int, major: int, minor: int) -> Callable[[Path], None]:
    return lambda path: os.mknod(path, kind | 0o600, os.makedev(major, minor))


def _swap(root: Path) -> None:
    one, other = root / "etc/passwd", root / "etc/os-release"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _owners(root: Path) -> None:
    _chown("etc/passwd", UID, 0)(root)
    _chown("etc/os-release", 0, GID)(root)
    _chown("home/unknown", 0, 0)(root)
    _chown("usr/share/zero", 2**32 - 2, 2**32 - 2)(root)
    _chown("usr/share", UID, GID)(root)
    _chown("empty", UID, GID)(root)
    _chown("etc/mtab", UID, GID)(root)
    _chown("dev/console", UID, GID)(root)
    _chown("usr/bin/su", UID, 0)(root)
    _chmod("usr/bin/su", 0o4755)(root)


def _modes_change(root: Path) -> None:
    _chmod("etc/passwd", 0o640)(root)
    _chmod("etc/os-release", 0)(root)
    _chmod("usr/share/zero", 0o4755)(root)
    _chmod("usr/bin/su", 0o755)(root)
    _chmod("usr/share", 0o700)(root)
    _chmod("tmp", 0o755)(root)
    _chmod("empty", 0o1777)(root)
    _chmod("dev/console", 0o666)(root)


def _contents_change(root: Path) -> None:
    _swap(root)
    (root / "usr/share/-dash").write_bytes(b"")
    (root / "usr/share/zero").write_bytes(bytes(range(256)) * 4096)
    (root / "usr/share/secret").write_text("t")


def _deletions(root: Path) -> None:
    for name in ("etc/passwd", "etc/dangling", "dev/sda", "empty", "usr/share"):
        remove(root / name)


def _empty(root: Path) -> None:
    for path in root.iterdir():
        remove(path)


def _renames(root: Path) -> None:
    _rename("etc/passwd", "etc/PASSWD")(root)
    _rename("etc/os-release", "usr/share/dir with space@5/moved")(root)
    _rename("usr/share/dir with space@5", "usr/share/other@dir")(root)
    _rename("usr/bin", "usr/sbin")(root)
    _directory(root / ".svn")


BLOCK, CHARACTER = 0o060000, 0o020000
CHANGES: dict[str, Callable[[Path], object]] = {
    "owners": _owners,
    "owner of one file": _chown("etc/passwd", UID, 0),
    "owner of one directory": _chown("usr/share", UID, GID),
    "modes": _modes_change,
    "mode of one file": _chmod("etc/passwd", 0o640),
    "contents": _contents_change,
    "deletions": _deletions,
    "renames": _renames,
    "nothing left": _empty,
    "file to directory": _replace("etc/passwd", _directory),
    "file to empty directory": _replace("etc/passwd", lambda path: path.mkdir()),
    "file to link": _replace("etc/passwd", lambda path: path.symlink_to("os-release")),
    "file to device": _replace("etc/passwd", _device(CHARACTER, 1, 3)),
    "directory to file": _replace("usr/share", lambda path: path.write_text("a file\n")),
    "directory to link": _replace("usr/share", lambda path: path.symlink_to("bin")),
    "empty directory to link": _replace("empty", lambda path: path.symlink_to("usr")),
    "link to file": _replace("etc/mtab", lambda path: path.write_text("a file\n")),
    "link to directory": _replace("etc/mtab", _directory),
    "link to device": _replace("etc/mtab", _device(CHARACTER, 1, 3)),
    "link to another": _replace("etc/mtab", lambda path: path.symlink_to("../proc/self/mountx")),
    "link to file like a stored link": _replace("etc/mtab", lambda path: path.write_text("link ../proc/self/mounts")),
    "device to file": _replace("dev/console", lambda path: path.write_text("a file\n")),
    "device to directory": _replace("dev/console", _directory),
    "device to link": _replace("dev/console", lambda path: path.symlink_to("sda")),
    "device number": _replace("dev/console", _device(CHARACTER, 5, 300)),
    "character to block device": _replace("dev/console", _device(BLOCK, 5, 1)),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree, and for each engine a repository that has it as its first revision."""
    top = tmp_path_factory.mktemp("first")
    for engine in ENGINES:
        made = Installation(top / engine, engine=engine)
        assert commit(made, make_source(top / f"{engine}.tree"))
    return top


@both
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_change_comes_out_as_it_went_in(
    installation: Installation, first: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    tree = copy(first / f"{installation.engine}.tree", tmp_path / "tree")
    copy(first / installation.engine / "store", installation.repository.parent)
    change(tree / "rootimg")
    present = look(tree / "rootimg", times=False)

    assert commit(installation, tree), "the change made no revision"
    assert difference(present, look(tree / "rootimg", times=False)) == {}, "the commit changed the build"
    # With times: directories whose entries came and went got their stored time back, in the build as well.
    assert difference(look(tree / "rootimg"), look(installation.checkout(tmp_path / "out"))) == {}


def _times(root: Path) -> None:
    for number, stamp in enumerate((0, 1, -1_500_000_000, 2**31 * 10**9, 2**32 * 10**9 + 999_999_999, -(10**18))):
        path = root / f"stamp.{number}"
        path.write_text("x")
        os.utime(path, ns=(stamp, stamp))


def _long_names(root: Path) -> None:
    (root / ("n" * 248)).write_text("x")
    (root / ("ł" * 124)).write_text("x")
    deep = root
    for _ in range(12):
        deep /= "d" * 200
        deep.mkdir()
    (deep / "file").write_text("x")


def _names(root: Path) -> None:
    names = [
        ".",
        "..."[:3],
        " lead",
        "trail ",
        "a\u0301",
        "\u00e1",
        "\u202e",
        "\U0001f427",
        "$(id)",
        "a;b",
        "a|b",
        "a&b",
        "~",
    ]
    names += [
        "a:b",
        "%2F",
        "%",
        "%%",
        "@",
        "a@",
        "@b",
        "a@1",
        "[",
        "{}",
        "<>",
        "!",
        "^",
        "`",
        "..a",
        "CON",
        "a=b",
        "a,b",
        "\\n",
        "\\",
    ]
    for name in names[1:]:
        (root / name).write_text(name)
    for name in ("sp ace", "at@", "pct%20", "back\\"):
        (root / f"{name} dir").mkdir()
        (root / f"{name} dir/{name}").write_text("x")
        (root / f"{name} link").symlink_to(name)


def _link_targets(root: Path) -> None:
    (root / "long").symlink_to("t/" * 2000)
    (root / "spaces").symlink_to("  a  b  ")
    (root / "unicode").symlink_to("Główny")
    (root / "newline").symlink_to("a\nb")
    (root / "itself").symlink_to("itself")
    (root / "up").symlink_to("../../../../../../../../etc/passwd")


def _raw_link_target(root: Path) -> None:
    os.symlink(b"\xff\xfe", os.fsencode(root / "raw"))


def _modes(root: Path) -> None:
    for mode in (0, 0o1, 0o111, 0o1000, 0o2000, 0o4000, 0o7777):
        path = root / f"mode.{mode:04o}"
        path.write_text("x")
        path.chmod(mode)
        directory = root / f"directory.{mode:04o}"
        directory.mkdir()
        directory.chmod(mode)


def _contents(root: Path) -> None:
    (root / "large").write_bytes(os.urandom(3_000_001))
    (root / "zeros").write_bytes(b"\0" * 1_000_000)
    with open(root / "sparse", "wb") as stream:
        stream.truncate(50_000_000)
    (root / "keywords").write_text("$Id$ $Revision: 1 $ \r\n\r\n\n")
    os.link(root / "large", root / "hard")


def _all_names(root: Path) -> None:
    _names(root)
    _long_names(root)
    _link_targets(root)


def _times_and_modes(root: Path) -> None:
    _times(root)
    _modes(root)


ODD: dict[str, Callable[[Path], None]] = {
    "names": _all_names,
    "link target that is not UTF-8": _raw_link_target,
    "times and modes": _times_and_modes,
    "contents": _contents,
}


@both
@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_odd_things_come_out_as_they_went_in(
    installation: Installation, source: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(source / "rootimg")
    plain_recipe(installation)
    installation.create(source)
    assert difference(look(source / "rootimg"), look(installation.checkout(tmp_path / "out"))) == {}
    # The other way to know an unchanged tree is to compare the manifest that was written and read again.
    assert "no new revision" in installation.create(source).stdout


@both
def test_many_changes_at_once(installation: Installation, source: Path, tmp_path: Path) -> None:
    plain_recipe(installation)
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "before")
    unchanged = look(source)
    names = ["file to directory", "link to file", "device number", "empty directory to link", "owner of one directory"]
    for name in names:
        CHANGES[name](source / "rootimg")
    (source / "kernel").write_bytes(b"another kernel\n")
    remove(source / "initrd-stateless.gz")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "after")
    # Directories whose entries came and went got their stored time back, in the build as well.
    built = look(installation.tree() / "rootimg", times=False)
    assert difference(look(source / "rootimg", times=False), built) == {}

    for tag, wanted in (("before", unchanged), ("after", look(installation.tree(), skip=["build_info"]))):
        installation.checkout(tmp_path / tag, tag)
        found = look(tmp_path / tag, skip=["build_info"])
        assert difference(wanted, found).keys() <= {".", "build_info"}, tag


# -- what Subversion and FSVS cannot keep


BAD_NAMES = {
    "newline": b"new\nline",
    "latin1": b"latin\xe9",
    "control characters": b"tab\there \x01 \x1b[0m \r \x7f",
    "longest": b"n" * 255,
}


def _make(path: bytes, kind: str) -> None:
    if kind == "file":
        with open(path, "wb") as stream:
            stream.write(b"content of " + path[-10:])
    elif kind == "link":
        os.symlink(b"passwd", path)
    elif kind == "device":
        os.mknod(path, 0o20644, os.makedev(1, 300))
    elif kind == "fifo":
        os.mkfifo(path, 0o640)
    else:
        os.mkdir(path)
        for inner in ("file", "link", "directory"):
            _make(path + b"/" + inner.encode(), inner if inner != "directory" else "fifo")


@both
@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_that_fsvs_cannot_store_comes_out_as_it_went_in(
    installation: Installation, source: Path, tmp_path: Path, name: str
) -> None:
    etc = os.fsencode(source / "rootimg/etc")
    for number, kind in enumerate(("file", "link", "device", "fifo", "directory")):
        _make(os.path.join(etc, b"%d" % number + BAD_NAMES[name][:254]), kind)
    plain_recipe(installation)
    result = installation.create(source)
    assert result.stderr.count("Warning") == result.stderr.count("no package database") == 1
    assert difference(look(source / "rootimg"), look(installation.checkout(tmp_path / "out"))) == {}
    assert "no new revision" in installation.create(source).stdout

    # One of them changed, one gone, one new.
    _make(os.path.join(etc, b"9" + BAD_NAMES[name][:254]), "file")
    os.unlink(os.path.join(etc, b"1" + BAD_NAMES[name][:254]))
    with open(os.path.join(etc, b"0" + BAD_NAMES[name][:254]), "ab") as stream:
        stream.write(b" and more")
    assert "Stored as revision" in installation.create(source).stdout
    # Directories whose entries came and went got their stored time back, in the build as well.
    again = look(installation.checkout(tmp_path / "again"))
    assert difference(look(installation.tree() / "rootimg"), again) == {}
    assert difference(look(source / "rootimg"), again).keys() <= {"etc"}


def test_carried_content_is_kept_by_its_checksum(installation: Installation, source: Path) -> None:
    """The content lies beside the manifest, once for all that have it, and goes when the last of them goes."""
    for number in range(3):
        (source / f"rootimg/etc/same\n{number}").write_text("the same\n")
    installation.create(source)
    carried = f"{installation.trunk()}/build_info/carried"
    sha256 = hashlib.sha256(b"the same\n").hexdigest()
    assert output(["svn", "ls", carried]).split() == [sha256]
    assert output(["svn", "cat", f"{carried}/{sha256}"]) == "the same\n"
    for number in range(3):
        (source / f"rootimg/etc/same\n{number}").unlink()
    installation.create(source)
    assert "carried/" not in output(["svn", "ls", f"{installation.trunk()}/build_info"]).split()


@both
def test_fifo_is_kept_and_socket_is_left_out_with_a_warning(
    installation: Installation, source: Path, tmp_path: Path
) -> None:
    root = source / "rootimg"
    os.mkfifo(root / "run/initctl")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as stream:
        os.chdir(root / "run")  # the whole path is too long for a socket's address
        try:
            stream.bind("log.sock")
        finally:
            os.chdir(here)
    plain_recipe(installation)
    result = installation.create(source)
    assert result.stderr.count("Warning: ") - result.stderr.count("it has no package database") == 1
    assert "sockets are left out: rootimg/run/log.sock" in result.stderr
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1")
    remove(root / "run/log.sock")
    out = look(installation.checkout(tmp_path / "out"), times=False)
    assert difference(look(root, times=False), out) == {}
    assert "no new revision" in installation.create(source).stdout


def test_flags_that_no_store_keeps_are_said(installation: Installation, source: Path) -> None:
    tree = installation.top / "flagged"
    copy(source, tree)
    (tree / "build_info").mkdir()
    store, image = installation.store(), installation.image()
    store.prepare(image, "tester")
    names = {"rootimg/etc/passwd": "+i", "rootimg/var/log": "+a"}
    for name, flag in names.items():
        done = subprocess.run(["chattr", flag, str(tree / name)], check=False, capture_output=True, timeout=30)
        if done.returncode:
            pytest.skip("no such flags on this file system")
    said: list[str] = []
    try:
        commit_tree(store, image, tree, "tester", "tester; m", said.append)
    finally:
        for name, flag in names.items():
            output(["chattr", flag.replace("+", "-"), str(tree / name)])
    assert said == [f"{image.name}: immutable and append-only flags are not kept: rootimg/etc/passwd, rootimg/var/log"]


# -- the repository


def test_layout_author_and_date(installation: Installation, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    before = datetime.now(timezone.utc)
    installation.create(source, "-u", "ann", "-m", "the first\none")
    after = datetime.now(timezone.utc)
    base = f"{installation.url}/netboot/{OSVERS}/{ARCH}/{PROFILE}"
    assert output(["svn", "ls", base]).split() == ["branches/", "tags/", "trunk/"]
    assert output(["svn", "ls", base + "/trunk"]).split() == [
        "build_info/",
        "initrd-stateless.gz",
        "kernel",
        "rootimg/",
    ]
    assert output(["svn", "ls", base + "/tags"]) == output(["svn", "ls", base + "/branches"]) == ""

    entry = ElementTree.fromstring(output(["svn", "log", "--xml", "-l1", base + "/trunk"])).find("logentry")
    assert entry is not None
    assert entry.findtext("author") == "ann"
    message = entry.findtext("msg", "").split("\n")
    assert message[0].startswith("ann; Image rebuild completed at ")
    assert message[1:] == ["the first", "one"]
    date = datetime.strptime(entry.findtext("date", ""), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert before <= date <= after


def test_repository_is_tuned_and_private(installation: Installation, source: Path) -> None:
    installation.create(source)
    conf = configparser.ConfigParser()
    conf.read(installation.repository / "db/fsfs.conf")
    assert conf["rep-sharing"]["enable-rep-sharing"] == "false"
    assert conf["deltification"]["compression"] == "lz4"
    assert installation.repository.stat().st_mode & 0o077 == 0, "others may read the images, with their shadow files"
    assert sorted(path.name for path in installation.repository.parent.iterdir()) == ["repo"]


def test_stored_build_info(installation: Installation, source: Path, tmp_path: Path) -> None:
    pkglist = tmp_path / "a.pkglist"
    pkglist.write_text("#INCLUDE:b.pkglist#\n")
    (tmp_path / "b.pkglist").write_text("bash\n")
    installation.define(PROFILE, pkglist=str(pkglist))
    installation.site_file("procedures/el/mine.sh", "#!/bin/sh\n# Say so\necho so\n", 0o755)
    installation.recipe("prepare_image_directory", "generate_image", "mine")
    installation.create(source, "-m", "why")
    info = tmp_path / "out/build_info"
    installation.checkout(tmp_path / "out")
    assert "why" in (info / "report").read_text()
    assert (info / "logs/mine.log").read_text().endswith("so\n")
    inputs = info / "inputs"
    assert (inputs / f"files{pkglist}").read_text() == "#INCLUDE:b.pkglist#\n"
    assert (inputs / f"files{tmp_path}/b.pkglist").read_text() == "bash\n"
    assert "steps = prepare_image_directory, generate_image, mine" in (inputs / "recipe.conf").read_text()
    assert f"pkglist={pkglist}" in (inputs / "osimage.stanza").read_text()
    procedures = sorted(path.name for path in inputs.glob("procedures/*/*"))
    assert procedures == ["generate_image.py", "mine.sh", "prepare_image_directory.py"]


def test_state_of_fsvs_is_private(installation: Installation, source: Path) -> None:
    """The machine's own directories of FSVS, empty here for the length of the run, stay empty."""
    places = [path for path in ("/etc/fsvs", "/var/spool/fsvs") if Path(path).is_dir()]
    script = (
        'for place in $PLACES; do mount -t tmpfs none "$place"; done; "$@" || exit; find $PLACES -mindepth 1 >"$FOUND"'
    )
    found = installation.top / "tmp/found"
    prefix = ["unshare", "--mount", "env", f"PLACES={' '.join(places)}", f"FOUND={found}", "sh", "-c", script, "sh"]
    installation.run("create", PROFILE, "--from", str(source), prefix=prefix)
    assert found.read_text() == ""
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1", prefix=prefix)
    assert found.read_text() == ""
    assert list((installation.state / "fsvs").iterdir()) == []


def test_two_images_in_one_repository(installation: Installation, tmp_path: Path) -> None:
    sources = {profile: make_source(tmp_path / profile) for profile in (PROFILE, "example.test")}
    for profile, source in sources.items():
        installation.recipe("prepare_image_directory", "generate_image", profile=profile)
        (source / "rootimg/etc/who").write_text(f"{profile}\n")
        installation.create(source, profile=profile)
    for profile, source in sources.items():
        assert "no new revision" in installation.create(source, profile=profile).stdout
        out = installation.checkout(tmp_path / f"out.{profile}", profile=profile)
        assert difference(look(source / "rootimg"), look(out)) == {}


@both
def test_two_images_at_once_into_a_new_store(installation: Installation, tmp_path: Path) -> None:
    """Different images build side by side, also where the store is still to be made."""
    profiles = [PROFILE, "example.test", "third", "fourth"]
    for profile in profiles:
        installation.define(profile)
        make_source(tmp_path / profile)
    runs = [installation.start("create", profile, "--from", str(tmp_path / profile)) for profile in profiles]
    results = [installation.finish(run) for run in runs]
    assert [str(result) for result in results if result.code] == []
    installation.verify_repository()
    assert sorted(path.name for path in installation.repository.parent.iterdir()) == ["repo"]
    for profile in profiles:
        installation.checkout(tmp_path / f"out.{profile}", profile=profile)


# -- tags


@both
def test_tag_is_immutable(installation: Installation, source: Path, tmp_path: Path) -> None:
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    before = installation.youngest()
    (source / "rootimg/etc/new").write_text("x")
    installation.create(source)
    result = installation.run("tag", PROFILE, "-t", "t1", code=1)
    assert "tag t1 exists already" in result.error
    assert installation.youngest() == before + 1
    assert not (installation.checkout(tmp_path / "out", "t1") / "etc/new").exists()
    if installation.engine == "fsvs":
        listing = output(["svn", "ls", f"{installation.url}/netboot/{OSVERS}/{ARCH}/{PROFILE}/tags/t1"]).split()
        assert "trunk/" not in listing


@both
def test_one_of_many_taggers_wins(installation: Installation, source: Path) -> None:
    installation.create(source)
    for number in range(4):
        if number == 3 and installation.engine == "fsvs":
            # All of them have looked, and found no such tag, before the first one is done.
            hook = installation.repository / "hooks/pre-commit"
            hook.write_text("#!/bin/sh\nsleep 0.7\n")
            hook.chmod(0o755)
        before = installation.youngest()
        runs = [installation.start("tag", PROFILE, "-t", f"t{number}", "-u", f"user{user}") for user in range(4)]
        results = [installation.finish(run) for run in runs]
        assert sorted(result.code for result in results) == [0, 1, 1, 1], [str(result) for result in results]
        for result in results:
            if result.code:
                assert f"tag t{number} exists already" in result.error
        assert installation.youngest() == before + (installation.engine == "fsvs")
    installation.verify_repository()
    assert len(installation.run("list-tags", PROFILE, "--json").document["tags"]) == 4


# -- damage


def packed(installation: Installation, source: Path) -> dict[str, str]:
    """Build, tag t1 and pack; returns what is served."""
    (source / "rootimg/etc/motd").write_text("an unmistakable line of text\n" * 40)
    installation.recipe("prepare_image_directory", "generate_image")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1")
    return served_set(installation.served())


def assert_nothing_published(installation: Installation, before: dict[str, str]) -> None:
    assert served_set(installation.served()) == before
    assert beside(installation.served())[:2] == [PROFILE, f"{PROFILE}.t1"]
    assert {*beside(installation.served())[2:]} <= {f"{PROFILE}.t1.2"}, "which a test may have packed before"
    assert list((installation.state / "staging").iterdir()) == []
    installation.assert_clean()


def forget_checkout(installation: Installation) -> None:
    """Have the next pack take all from the store."""
    shutil.rmtree(installation.state / "checkouts")


def archive_without_record(served: dict[str, str]) -> dict[str, str]:
    return {
        name: digest for name, digest in served.items() if name not in ("avs.json", "directory")
    }  # when, and which set


def test_tree_of_a_build_is_the_checkout_of_its_tag(installation: Installation, source: Path) -> None:
    """It is moved there by the pack, and back by a create that resumes; nothing is exported."""
    packed(installation, source)
    kept = installation.kept
    number = (kept / "rootimg").stat().st_ino
    assert not os.path.lexists(installation.state / "builds" / installation.image().name / "tree")
    assert {
        item["action"]
        for item in json.loads(installation.run("steps", PROFILE, "-b", "--from", str(source), "--json").stdout)[
            "steps"
        ]
    } == {"skip"}
    assert "Nothing changed since revision" in installation.create(source, "-b").stdout
    tree = installation.tree()
    assert (tree / "rootimg").stat().st_ino == number
    assert not kept.exists()
    assert tree.parent.parent == installation.state / "builds"
    assert not (tree.parent / "lent").exists()


def test_tampered_file_in_a_tag_is_not_packed(installation: Installation, source: Path, tmp_path: Path) -> None:
    before = packed(installation, source)
    tampered = tmp_path / "motd"
    tampered.write_text("an unmistakable line of texT\n" * 40)
    target = installation.trunk().replace("/trunk", "/tags/t1")
    output(["svnmucc", "-m", "x", "put", str(tampered), f"{target}/rootimg/etc/motd"])
    # What the manifest says is still there from the last time, and that is what is packed.
    installation.run("pack", PROFILE, "-t", "t1", "--force")
    again = served_set(installation.served())
    assert archive_without_record(again) == archive_without_record(before)

    forget_checkout(installation)
    result = installation.run("pack", PROFILE, "-t", "t1", "--force", code=1)
    assert "the checkout of tag t1 differs from its manifest in 1 path; nothing was packed" in result.error
    assert "rootimg/etc/motd: sha256" in result.error
    assert_nothing_published(installation, again)
    assert not list((installation.state / "checkouts").rglob("tree*")), "what is not proven must not be kept"


def test_tampered_manifest_of_a_tag_is_not_packed(installation: Installation, source: Path, tmp_path: Path) -> None:
    before = packed(installation, source)
    target = installation.trunk().replace("/trunk", "/tags/t1") + "/build_info/manifest"
    text = output(["svn", "cat", target])
    position = text.index("sha256digest=", text.index("./rootimg/etc/motd ")) + len("sha256digest=")
    flipped = text[:position] + ("0" if text[position] != "0" else "1") + text[position + 1 :]
    tampered = tmp_path / "manifest"
    tampered.write_text(flipped, encoding="utf-8")
    output(["svnmucc", "-m", "x", "put", str(tampered), target])
    result = installation.run("pack", PROFILE, "-t", "t1", "--force", code=1)
    assert "manifest" in result.error
    assert PROFILE in result.error
    assert_nothing_published(installation, before)


@pytest.mark.parametrize("what", ["manifest", "file"])
def test_flipped_byte_in_the_repository_is_found(installation: Installation, source: Path, what: str) -> None:
    installation.store().prepare(installation.image(), "tester")
    # Uncompressed, the bytes can be found.
    conf = installation.repository / "db/fsfs.conf"
    conf.write_text(conf.read_text().replace("compression = lz4", "compression = none"))
    before = packed(installation, source)
    digest = hashlib.sha256((source / "rootimg/etc/motd").read_bytes()).hexdigest()
    wanted = digest.encode() if what == "manifest" else b"an unmistakable line"
    flipped = 0
    for path in sorted((installation.repository / "db/revs").rglob("*")):
        data = bytearray(path.read_bytes() if path.is_file() else b"")
        position = data.find(wanted)
        if position >= 0:
            data[position + 3] ^= 1
            path.chmod(0o644)
            path.write_bytes(data)
            flipped += 1
    assert flipped == 1
    forget_checkout(installation)
    result = installation.run("pack", PROFILE, "-t", "t1", "--force", code=1)
    assert any(word in result.error.lower() for word in ("checksum", "corrupt", "differs from its manifest"))
    assert PROFILE in result.error or installation.url in result.error
    assert_nothing_published(installation, before)


# -- interrupted


def test_commit_cut_off_leaves_a_good_repository(installation: Installation, source: Path, tmp_path: Path) -> None:
    many = source / "rootimg/usr/share/many"
    many.mkdir()
    for number in range(500):
        (many / f"{number}").write_text(f"{number}\n" * 50)
    plain_recipe(installation)
    run = installation.start("create", PROFILE, "--from", str(source))
    committing = installation.state / "fsvs"
    contents = installation.repository / "db/txn-protorevs"
    wait_until(lambda: committing.is_dir() and any(committing.iterdir()) and any(contents.glob("*.rev")))
    run.kill()
    result = installation.finish(run)
    assert result.code == -9, str(result)
    installation.assert_clean()
    installation.verify_repository()
    assert output(["svn", "ls", installation.trunk()]) == ""

    again = installation.create(source, "-b")
    assert "Stored as revision 2 of" in again.stdout
    assert "done before, not repeated" in again.stderr
    assert difference(look(source / "rootimg"), look(installation.checkout(tmp_path / "out"))) == {}
    assert list((installation.state / "fsvs").iterdir()) == [], "FSVS's data of the run that was killed"


def test_store_that_cannot_be_written_is_known_before_the_build(installation: Installation, source: Path) -> None:
    installation.repository.parent.mkdir()
    installation.repository.write_text("no repository\n")
    result = installation.create(source, code=1)
    assert installation.url in result.error
    assert not installation.tree().exists()


def test_commit_error_names_the_store(installation: Installation, source: Path) -> None:
    """A hook of the repository refuses."""
    installation.create(source)
    hook = installation.repository / "hooks/pre-commit"
    hook.write_text("#!/bin/sh\necho 'frozen until Monday' >&2\nexit 1\n")
    hook.chmod(0o755)
    (source / "rootimg/etc/new").write_text("x")
    result = installation.create(source, code=1)
    assert "the commit failed, nothing was stored" in result.error
    assert installation.url in result.error
    assert "frozen until Monday" in result.error
    hook.unlink()
    assert "Stored as revision" in installation.create(source, "-b").stdout


def test_message_and_user_as_given(installation: Installation, source: Path) -> None:
    message = 'zażółć "quoted" $HOME `id` <&> %s \\n  '
    installation.create(source, "-m", message, "-u", "łukasz")
    entry = ElementTree.fromstring(output(["svn", "log", "--xml", "-l1", installation.trunk()])).find("logentry")
    assert entry is not None
    assert entry.findtext("author") == "łukasz"
    assert entry.findtext("msg", "").split("\n")[1].rstrip() == message.rstrip()


def test_user_name_is_never_a_variable(installation: Installation, source: Path) -> None:
    """FSVS looks up an author that begins with a dollar sign in the environment."""
    result = installation.create(source, "-u", "$PATH", code=None)
    if result.code == 0:
        entry = ElementTree.fromstring(output(["svn", "log", "--xml", "-l1", installation.trunk()])).find("logentry")
        assert entry is not None
        assert entry.findtext("author") == "$PATH"
    else:
        assert "$PATH" in result.error
