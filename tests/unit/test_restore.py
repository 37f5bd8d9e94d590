"""Trees made what their manifest says: what Subversion and FSVS do not bring back."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from unit.test_manifest import ODD_NAMES, deep
from xcat_avs.errors import AvsError
from xcat_avs.system import descent, mounts
from xcat_avs.tree import manifest, restore, scan
from xcat_avs.tree.manifest import Entry, Manifest

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every type that is kept, odd names, links of several names, xattrs, holes, odd times."""
    top = tmp_path / "tree"
    (top / "dir/empty").mkdir(parents=True)
    for number, odd in enumerate(ODD_NAMES):
        path = os.path.join(os.fsencode(top), odd)
        with open(path, "wb") as stream:
            stream.write(b"%d" % number * number)
        os.utime(path, ns=(10**18, 10**18 + number))
    (top / "dir/suid").write_bytes(b"#!")
    os.chown(top / "dir/suid", 12345, 54321)
    os.chmod(top / "dir/suid", 0o6755)
    os.symlink(b"\xff", os.fsencode(top) + b"/dir/bytes")
    os.chown(top / "dir/bytes", 7, 8, follow_symlinks=False)
    os.link(top / "dir/bytes", top / "dir/bytes again", follow_symlinks=False)
    os.mknod(top / "dir/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "dir/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    os.mkfifo(top / "dir/fifo", 0o640)
    os.link(top / "plain", top / "dir/one more name")
    os.setxattr(top / "dir/suid", "user.note", b"\0\xff")
    os.setxattr(top / "with space", "security.capability", CAPABILITY)
    os.setxattr(top / "dir/bytes", "trusted.link", b"1", follow_symlinks=False)
    os.setxattr(top / "dir/empty", "user.empty", b"")
    with open(top / "dir/holes", "wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"x")
        stream.truncate(1 << 21)
    os.chmod(top / "dir", 0o3750)
    for name, stamp in (("dir/holes", -1), ("dir/empty", -(10**18) - 123456789), ("dir", 999_999_999)):
        os.utime(top / name, ns=(0, stamp))
    return top


def contents_of(tree: Path, found: Manifest, directory: Path) -> Path:
    """The content of every file by its SHA-256."""
    directory.mkdir()
    for path, entry in found.items():
        if entry.type == "file":
            with descent.reach(str(tree), path) as full:
                shutil.copyfile(full, directory / entry.sha256)
    return directory


def test_a_whole_tree_is_made_of_its_manifest_and_contents(tree: Path, tmp_path: Path) -> None:
    wanted = scan.scan(str(tree))
    contents = contents_of(tree, wanted, tmp_path / "contents")
    (tmp_path / "new").mkdir()
    restore.restore(str(tmp_path / "new"), wanted, contents)
    found = scan.scan(str(tmp_path / "new"))
    assert manifest.compare(wanted, found, times=True) == []
    assert found == wanted, "holes too"


def _plain(path: Path) -> None:
    """What FSVS gives: no xattrs, no hard links, no holes, and modes and owners that it forgets."""
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            full = os.path.join(directory, name)
            for attribute in os.listxattr(full, follow_symlinks=False):
                os.removexattr(full, attribute, follow_symlinks=False)
            os.chown(full, 99, 98, follow_symlinks=False)
            if not os.path.islink(full):
                os.chmod(full, 0o600)
            os.utime(full, ns=(5, 5), follow_symlinks=False)


def test_what_fsvs_forgets_comes_back(tree: Path, tmp_path: Path) -> None:
    wanted = scan.scan(str(tree))
    new = tmp_path / "new"
    subprocess.run(["cp", "-r", "-P", "--preserve=timestamps", "--sparse=never", str(tree), str(new)], check=True)
    _plain(new)
    assert (new / "dir/holes").stat().st_blocks * 512 >= 1 << 21
    restore.restore(str(new), wanted, tmp_path / "none")
    assert scan.scan(str(new)) == wanted
    assert (new / "dir/holes").stat().st_blocks * 512 < 1 << 16
    assert (new / "plain").stat().st_ino == (new / "dir/one more name").stat().st_ino
    assert os.getxattr(new / "with space", "security.capability") == CAPABILITY


def test_what_is_as_it_should_be_is_left_alone(tree: Path, tmp_path: Path) -> None:
    """Nothing is written where nothing differs: a kept checkout of thousands of files costs no disk."""
    wanted = scan.scan(str(tree))
    before = {path: status.st_ctime_ns for path, status in scan.walk(str(tree))}
    restore.restore(str(tree), wanted, tmp_path / "none")
    assert {path: status.st_ctime_ns for path, status in scan.walk(str(tree))} == before


def test_xattrs_that_should_not_be_there_are_removed(tree: Path, tmp_path: Path) -> None:
    wanted = scan.scan(str(tree))
    os.setxattr(tree / "plain", "user.more", b"1")
    os.setxattr(tree / "dir/suid", "user.note", b"another")
    os.setxattr(tree / "dir/bytes", "trusted.more", b"1", follow_symlinks=False)
    os.removexattr(tree / "with space", "security.capability")
    restore.restore(str(tree), wanted, tmp_path / "none")
    assert scan.scan(str(tree)) == wanted


def test_default_acl_of_a_directory_does_not_reach_what_is_made_in_it(tmp_path: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("not installed: setfacl")
    top = tmp_path / "tree"
    (top / "d/below").mkdir(parents=True)
    (top / "d/file").write_text("x")
    os.mkfifo(top / "d/fifo", 0o640)
    subprocess.run(["setfacl", "-d", "-m", "u:61234:rwx,g::rwx", str(top / "d")], check=True)
    subprocess.run(["setfacl", "-m", "u:61235:r", str(top / "d/file")], check=True)
    wanted = scan.scan(str(top))
    assert [name for name, _ in wanted["d"].xattrs] == ["system.posix_acl_default"]
    assert [name for name, _ in wanted["d/file"].xattrs] == ["system.posix_acl_access"]
    contents = contents_of(top, wanted, tmp_path / "contents")
    (tmp_path / "new").mkdir()
    restore.restore(str(tmp_path / "new"), wanted, contents)
    assert scan.scan(str(tmp_path / "new")) == wanted


def test_capability_is_kept_where_the_owner_changes(tmp_path: Path) -> None:
    """The kernel takes it away, as it takes setuid, with a change of owner."""
    (tmp_path / "top").mkdir()
    program = tmp_path / "top/ping"
    program.write_bytes(b"x")
    os.chown(program, 12, 34)
    os.chmod(program, 0o4755)
    os.setxattr(program, "security.capability", CAPABILITY)
    wanted = scan.scan(str(tmp_path / "top"))
    os.chown(program, 0, 0)
    assert os.listxattr(program) == []
    restore.restore(str(tmp_path / "top"), wanted, tmp_path / "none")
    assert scan.scan(str(tmp_path / "top")) == wanted


@pytest.mark.parametrize("first", ["a", "z"])
def test_hard_links_that_are_separate_files_are_joined(tmp_path: Path, first: str) -> None:
    top = tmp_path / "top"
    (top / "m").mkdir(parents=True)
    (top / f"{first}.1").write_text("same")
    os.link(top / f"{first}.1", top / "m/2")
    os.link(top / f"{first}.1", top / "n")
    wanted = scan.scan(str(top))
    for name in (f"{first}.1", "m/2", "n"):
        (top / name).unlink()
        (top / name).write_text("same")
    restore.restore(str(top), wanted, tmp_path / "none")
    assert scan.scan(str(top)) == wanted
    assert (top / "n").stat().st_nlink == 3


def _gone(top: Path) -> None:
    (top / "with space").unlink()


def _gone_directory(top: Path) -> None:
    shutil.rmtree(top / "dir")


@pytest.mark.parametrize(("damage", "named"), [(_gone, "with space"), (_gone_directory, "dir/holes")])
def test_a_file_without_content_is_named(
    tree: Path, tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    wanted = scan.scan(str(tree))
    damage(tree)
    with pytest.raises(AvsError, match=f"^'{named}' cannot be made what its manifest says: No such file"):
        restore.restore(str(tree), wanted, tmp_path / "none")


def test_a_link_instead_of_a_directory_is_not_followed(tree: Path, tmp_path: Path) -> None:
    """What it leads to is not of the image."""
    wanted = scan.scan(str(tree))
    outside = tmp_path / "outside"
    shutil.move(str(tree / "dir"), outside)
    for path in outside.iterdir():
        os.utime(path, ns=(9, 9), follow_symlinks=False)
        os.chown(path, 1, 1, follow_symlinks=False)
    before = scan.scan(str(outside))
    (tree / "dir").symlink_to(outside)
    with pytest.raises(AvsError, match=r"^'dir' is of type link, and dir by its manifest$"):
        restore.restore(str(tree), wanted, tmp_path / "none")
    assert scan.scan(str(outside)) == before


def test_a_link_instead_of_a_file_is_not_followed(tree: Path, tmp_path: Path) -> None:
    wanted = scan.scan(str(tree))
    outside = tmp_path / "outside"
    outside.write_text("x")
    os.chmod(outside, 0o604)
    status = outside.stat()
    for name in ("dir/suid", "dir/holes", "with space"):
        (tree / name).unlink()
        (tree / name).symlink_to(outside)
    with pytest.raises(AvsError, match=r"^'dir/holes' is of type link, and file by its manifest$"):
        restore.restore(str(tree), wanted, tmp_path / "none")
    after = outside.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (status.st_mode, status.st_uid, status.st_mtime_ns)
    assert os.listxattr(outside) == []
    assert outside.read_text() == "x"


@pytest.mark.parametrize("name", [b"d" * 200, b"\xff" * 99], ids=["text", "bytes"])
def test_paths_longer_than_the_kernel_takes(tmp_path: Path, name: bytes) -> None:
    tops = [tmp_path / "tree", tmp_path / "new"]
    for top in tops:
        top.mkdir()
    try:
        path = os.fsdecode(deep(tops[0], name, 4500))
        for inner in ("file", "other"):
            with descent.reach(str(tops[0]), f"{path}/{inner}") as full:
                os.setxattr(full, "user.x", b"1")
                os.utime(full, ns=(1, 2))
        wanted = scan.scan(str(tops[0]))
        contents = contents_of(tops[0], wanted, tmp_path / "contents")
        restore.restore(str(tops[1]), wanted, contents)
        assert scan.scan(str(tops[1])) == wanted
    finally:
        subprocess.run(["rm", "-rf", *map(str, tops)], check=True)


def test_copy_content_keeps_holes_and_takes_any_name(tmp_path: Path) -> None:
    source, target = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/\xff\n", b"/\xfe \t"))
    with open(source, "wb") as stream:
        stream.truncate(1 << 24)
        stream.seek(1 << 22)
        stream.write(b"middle")
    restore.copy_content(source, target)
    assert scan.digest(source) == scan.digest(target)
    assert os.stat(target).st_blocks * 512 < 1 << 20
    with pytest.raises(FileExistsError):
        restore.copy_content(source, target)


def test_nothing_is_made_of_an_empty_manifest(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    restore.restore(str(tmp_path / "top"), {}, tmp_path / "none")
    restore.restore(str(tmp_path / "top"), {"d": Entry("d", "dir", 0o711, 1, 2, 3)}, tmp_path / "none")
    assert scan.scan(str(tmp_path / "top")) == {"d": Entry("d", "dir", 0o711, 1, 2, 3)}


def test_restore_times(tree: Path) -> None:
    before = scan.scan(str(tree))
    subprocess.run(["find", str(tree), "-exec", "touch", "-h", "{}", "+"], check=True)
    (tree / "plain").write_bytes(b"changed")
    os.utime(tree / "plain", ns=(5, 5))
    present = scan.scan(str(tree))
    assert all(present[path].mtime != before[path].mtime for path in before)
    restore.restore_times(str(tree), before, present)
    after = scan.scan(str(tree))
    assert after["plain"].mtime == 5, "its content is another: the time is its own"
    assert {path for path in before if after[path].mtime != before[path].mtime} == {"plain", "dir/one more name"}
    assert {path: entry._replace(mtime=0) for path, entry in after.items()} == {
        path: entry._replace(mtime=0) for path, entry in present.items()
    }


def test_restore_times_of_links_and_directories_does_not_follow(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    os.utime(outside, ns=(7, 7))
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "d/link").symlink_to(outside)
    before = scan.scan(str(top))
    wanted = {path: entry._replace(mtime=42) for path, entry in before.items()}
    restore.restore_times(str(top), wanted)
    assert outside.stat().st_mtime_ns == 7
    assert {path: entry.mtime for path, entry in scan.scan(str(top)).items()} == {"d": 42, "d/link": 42}


@pytest.mark.slow
def test_a_file_system_without_attributes(tmp_path: Path) -> None:
    """What it does not keep is known before anything is stored, and said where a tag cannot be made again."""
    assert restore.unkept(tmp_path) == []
    point = tmp_path / "plain"
    point.mkdir()
    with mounts.mounted("ramfs", point, "ramfs"):
        assert restore.unkept(point) == ["capabilities", "user.*", "trusted.*", "ACLs"]
        assert list(point.iterdir()) == []
        (point / "ping").write_text("ping")
        found = scan.scan(str(point))
        wanted = {"ping": found["ping"]._replace(xattrs=(("security.capability", CAPABILITY),))}
        with pytest.raises(AvsError, match=r"'ping' cannot be made .*keeps no such attributes; put \[paths\] state on"):
            restore.restore(str(point), wanted, tmp_path)
