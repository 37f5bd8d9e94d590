"""A tree with everything a file system can hold, through create, tag and pack, compared by other programs than ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import GID, UID, both, make_source
from integration.harness import PROFILE, Installation, difference, output, remove

pytestmark = pytest.mark.slow

PROGRAMS = ("rsync", "getfattr", "setfattr", "getfacl", "setfacl", "getcap", "setcap", "mkfs.ext4")
NAMES = [
    b"new\nline", b"\n", b"latin-\xfc", b"\xff\xfe", b"n" * 255, "ł".encode() * 127, b" ", b" lead", b"trail ", b"a@", b"@", b"@1",
    b"a@HEAD", b"%", b"%2F", b"%00", b"back\\slash", b"\\", b"\\n", "zażółć ✓ 日本".encode(), "a\u0301".encode(), "\u00e1".encode(),
    b".svn", b".hidden", b"...", b"-rf", b"$HOME", b"`id`", b"*", b"?[x]", b"'q\"", b"tab\there", b"\x01\x1b\x7f", b"a:b", b"a,b",
    b"#x", b"{}", b"~", b"CON", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80",
]  # fmt: skip
TIMES = (0, 1, -1, -1_500_000_000, -(10**18) - 123_456_789, 10**18 + 1, 2**31 * 10**9, 2**32 * 10**9 + 999_999_999)
MODES = (0, 0o1, 0o111, 0o644, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777)


@pytest.fixture(autouse=True)
def _has_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def make_each(directory: bytes, name: bytes) -> None:
    """A file, a link, a device, a FIFO and a directory of one name, each in a directory for its type."""
    for kind in (b"file", b"link", b"device", b"fifo", b"directory"):
        path = directory + b"/" + kind + b"/" + name
        os.makedirs(directory + b"/" + kind, exist_ok=True)
        if kind == b"file":
            with open(path, "wb") as stream:
                stream.write(b"content of " + name)
        elif kind == b"link":
            os.symlink(name[:1] + b"/" + name, path)
        elif kind == b"device":
            os.mknod(path, 0o20640, os.makedev(259, 70000))
        elif kind == b"fifo":
            os.mkfifo(path, 0o620)
        else:
            os.makedirs(path + b"/below/" + name)
            for inner in (b"/file", b"/below/file"):
                with open(path + inner, "wb") as stream:
                    stream.write(name)


def make_deep(top: Path, name: bytes, length: int) -> None:
    """Nested directories, whose relative paths come to a length, with a file, a link, a FIFO and an ACL at the end."""
    descriptor = os.open(top, os.O_RDONLY)
    reached = 0
    while reached + len(name) + 1 < length:
        os.mkdir(name, dir_fd=descriptor)
        following = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, reached = following, reached + len(name) + 1
    here = os.getcwd()
    try:
        os.fchdir(descriptor)
        Path("file").write_text("at the end\n")
        os.link("file", "hard")
        Path("link").symlink_to("file")
        os.mkfifo("fifo")
        os.setxattr("file", "user.deep", b"1")
        os.utime("file", ns=(1, 1_234_567_890_123_456_789))
    finally:
        os.chdir(here)
        os.close(descriptor)


def make_torture(root: Path) -> None:
    """All of it, below an image root."""
    top = root / "odd"
    top.mkdir()
    for name in NAMES:
        make_each(os.fsencode(top), name)
    for mode in MODES:
        for kind in ("file", "directory"):
            path = top / f"{kind}.{mode:04o}"
            path.touch() if kind == "file" else path.mkdir()
            os.chown(path, UID, GID)
            path.chmod(mode)
    for number, owner in enumerate(((2**32 - 2, 2**32 - 2), (UID, 0), (0, GID), (65534, 65534))):
        for kind in ("f", "l"):
            path = top / f"owner.{kind}.{number}"
            path.touch() if kind == "f" else path.symlink_to("nowhere")
            os.chown(path, *owner, follow_symlinks=False)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(top)
        listener.bind("socket")
        os.chdir(here)
    _attributes(root / "attributes")
    _hard_links(root / "hard")
    _sizes(root / "sizes")
    (root / "deep").mkdir()
    make_deep(root / "deep", b"d" * 200, 2800)
    make_deep(root / "deep", b"e" * 240, 3880)
    make_deep(root / "deep", b"\xff" * 150, 3880)
    make_deep(root / "deep", b"s", 300)
    times = root / "times"
    times.mkdir()
    for number, stamp in enumerate(TIMES):
        for kind in ("file", "link", "fifo", "directory"):
            path = times / f"{kind}.{number}"
            if kind == "file":
                path.touch()
            elif kind == "link":
                path.symlink_to("x")
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                path.mkdir()
            os.utime(path, ns=(stamp, stamp), follow_symlinks=False)
    os.utime(times, ns=(5, 999_999_999))


def _attributes(top: Path) -> None:
    top.mkdir()
    for name in ("user", "cap", "acl", "all"):
        (top / name).write_text(name)
    (top / "link").symlink_to("user")
    (top / "d/below").mkdir(parents=True)
    os.setxattr(top / "user", "user.a", bytes(range(256)))
    os.setxattr(top / "user", "user.é\n=", b"")
    os.setxattr(top / "d", "user.d", b"x" * 3000)
    os.setxattr(top / "d", "trusted.d", b"1")
    os.setxattr(top / "link", "trusted.l", b"2", follow_symlinks=False)
    os.mknod(top / "device", 0o20600, os.makedev(1, 3))
    os.setxattr(top / "device", "trusted.device", b"3")
    os.mknod(top / "whiteout of a container", 0o20000, os.makedev(0, 0))
    os.setxattr(top / "d", "trusted.overlay.opaque", b"y")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "fifo", "trusted.fifo", b"4")
    output(["setcap", "cap_net_raw,cap_net_admin=eip", str(top / "cap")])
    output(["setfacl", "-m", f"u:{UID}:rwx,g:{GID}:r,m:rx", str(top / "acl")])
    output(["setfacl", "-m", f"u:{UID}:rx", str(top / "d")])
    output(["setfacl", "-d", "-m", f"u:{UID}:rwx,g::rwx,o::-", str(top / "d")])
    (top / "d/made under a default ACL").write_text("x")
    (top / "d/made and freed of it").write_text("x")
    output(["setfacl", "-b", str(top / "d/made and freed of it")])
    os.mkfifo(top / "d/fifo")
    (top / "d/new\nline").write_text("x")
    os.chown(top / "all", UID, GID)
    (top / "all").chmod(0o6755)
    output(["setfacl", "-m", f"u:{GID}:r", str(top / "all")])
    output(["setcap", "cap_chown=p", str(top / "all")])
    os.setxattr(top / "all", "user.all", b"1")


def _hard_links(top: Path) -> None:
    for name in ("a", "b/c"):
        (top / name).mkdir(parents=True)
    (top / "b/c/file").write_text("one file of many names\n")
    (top / "b/c/link").symlink_to("file")
    os.mkfifo(top / "b/c/fifo")
    os.mknod(top / "b/c/device", 0o60600, os.makedev(8, 1))
    for name in ("file", "link", "fifo", "device"):
        for other in (f"a/{name}", f"z.{name}", f"b/{name}\nwith a new line"):
            os.link(top / "b/c" / name, top / other, follow_symlinks=False)
    # The first name of one is carried, and that of the others stored; and the other way round.
    (top / "n\n1").write_text("carried first\n")
    os.link(top / "n\n1", top / "n1")
    (top / "m1").write_text("stored first\n")
    os.link(top / "m1", top / "m1\n")
    os.setxattr(top / "m1", "user.x", b"1")


def _sizes(top: Path) -> None:
    top.mkdir()
    (top / "zero").touch()
    (top / "one").write_bytes(b"\0")
    (top / "zeros").write_bytes(b"\0" * (1 << 20))  # dense: it stays so
    with open(top / "only a hole", "wb") as stream:
        stream.truncate(1 << 24)
    with open(top / "sparse", "wb") as stream:
        for number in range(6):
            stream.seek(number * 10_000_000)
            stream.write(os.urandom(1 << 16))
        stream.truncate(70_000_000)
    with open(top / "holes with\na new line", "wb") as stream:
        stream.seek(1 << 22)
        stream.write(b"x")
        stream.truncate(1 << 23)
    (top / "dense").write_bytes(os.urandom(1 << 24))


def described(top: Path, *argv: str) -> list[bytes]:
    """What a program says of every path below top, but for the socket, which is not kept; in any order."""
    done = subprocess.run(argv, cwd=top, capture_output=True, check=True, timeout=120)
    separator = b"\n" if argv[0] == "getcap" else b"\n\n"
    return sorted(block for block in done.stdout.split(separator) if block and b"/socket\n" not in block)


DESCRIBE = (
    ("getfattr", "-h", "-d", "-m", "-", "-R", "-e", "hex", "."),
    ("getcap", "-r", "."),
    ("getfacl", "-R", "-P", "-n", "."),
)


def blocks(top: Path) -> dict[str, int]:
    return {path: (top / "sizes" / path).stat().st_blocks for path in os.listdir(top / "sizes")}


def assert_same(wanted: Path, found: Path) -> None:
    """Nothing that rsync, getfattr, getcap or getfacl sees differs."""
    rsync = ["rsync", "-aHAXn", "--checksum", "--delete", "-i", "--numeric-ids", "--exclude=socket"]
    done = subprocess.run([*rsync, f"{wanted}/", f"{found}/"], capture_output=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()) == (0, "", "")
    for argv in DESCRIBE:
        assert described(wanted, *argv) == described(found, *argv), argv[0]
        assert len(described(wanted, *argv)) >= 2


def assert_same_times(wanted: Path, found: Path) -> None:
    """rsync compares whole seconds: here to the nanosecond, as find prints them."""
    # How large a directory is goes by the file system.
    argv = ["find", ".", "(", "-name", "socket", "-o", "-type", "d", "-printf", "%p\\0%T@\\0%y%m %U %G\\0",
            "-o", "-printf", "%p\\0%T@\\0%y%m %U %G %s %l\\0", ")"]  # fmt: skip
    texts = [
        subprocess.run(argv, cwd=top, capture_output=True, check=True, timeout=120).stdout.split(b"\0")
        for top in (wanted, found)
    ]
    one, other = (dict(zip(text[::3], zip(text[1::3], text[2::3]))) for text in texts)
    assert difference({os.fsdecode(path): facts for path, facts in one.items()},
                      {os.fsdecode(path): facts for path, facts in other.items()}) == {}  # fmt: skip


@pytest.fixture
def torture(tmp_path: Path) -> Iterator[Path]:
    source = make_source(tmp_path / "source")
    make_torture(source / "rootimg")
    yield source
    subprocess.run(["rm", "-rf", str(source)], check=True, timeout=60)


def build_and_pack(installation: Installation, source: Path, tag: str) -> None:
    result = installation.create(source)
    assert "Stored as revision" in result.stdout
    assert "sockets are left out: rootimg/odd/socket" in result.stderr
    installation.run("tag", PROFILE, "-t", tag)
    installation.run("pack", PROFILE, "-t", tag, "--method", "tar", "--compress", "gzip")


@both
def test_everything_comes_back(installation: Installation, torture: Path) -> None:
    installation.recipe("prepare_image_directory", "generate_image")
    root = torture / "rootimg"
    build_and_pack(installation, torture, "t1")
    assert_same(root, installation.kept / "rootimg")
    assert_same_times(root, installation.kept / "rootimg")
    found, wanted = blocks(installation.kept / "rootimg"), blocks(root)
    assert {path: count for path, count in found.items() if count > wanted[path] + 16} == {}, "holes were filled"
    assert "no new revision" in installation.create(torture).stdout

    change_much(root)
    build_and_pack(installation, torture, "t2")
    tree = installation.tree() / "rootimg"
    # Unchanged directories have their stored time back in the build: that is what was stored.
    assert_same(tree, installation.kept / "rootimg")
    assert_same_times(tree, installation.kept / "rootimg")
    argv = [
        "rsync",
        "-rlpgoDHAXn",
        "--checksum",
        "--delete",
        "-i",
        "--exclude=socket",
        f"{root}/",
        f"{installation.kept}/rootimg/",
    ]
    assert output(argv) == ""

    # What was stored before is still what it was.
    installation.run("pack", PROFILE, "-t", "t1", "--method", "tar", "--compress", "gzip")
    assert (installation.kept / "rootimg/odd/file/a@").exists()
    installation.verify_repository()


def change_much(root: Path) -> None:
    """Every kind of change at once."""
    odd = root / "odd"
    # Types that change places, of plain and of odd names.
    for name in ("a@", "new\nline", "\udcff\udcfe"):
        paths = [odd / kind / name for kind in ("file", "link", "device", "fifo", "directory")]
        for path in paths:
            remove(path)
        paths[0].mkdir()
        (paths[0] / "below").write_text("x")
        paths[1].write_text("a file now")
        paths[2].symlink_to("a link now")
        os.mknod(paths[3], 0o60600, os.makedev(8, 3))
        os.mkfifo(paths[4])
    os.rename(odd / "directory/trail ", odd / "directory/renamed@2")
    os.rename(odd / "directory/\n", odd / "directory/plain now")
    os.rename(odd / "file/%2F", odd / "file/renamed\n%2F")
    os.rename(odd / "file/latin-\udcfc", odd / "file/latin")
    (odd / "directory/-rf/more/and more").mkdir(parents=True)
    for path in (odd / "directory/@", odd / "directory/" / ("n" * 255), odd / "link/*", odd / "fifo/ "):
        remove(path)
    attributes_top = root / "attributes"
    output(["setcap", "-r", str(attributes_top / "cap")])
    output(["setcap", "cap_sys_time=ep", str(attributes_top / "user")])
    output(["setfacl", "-b", str(attributes_top / "acl")])
    output(["setfacl", "-k", str(attributes_top / "d")])
    output(["setfacl", "-d", "-m", f"g:{GID}:r", str(attributes_top / "d/below")])
    os.removexattr(attributes_top / "user", "user.a")
    os.setxattr(attributes_top / "link", "trusted.l", b"another", follow_symlinks=False)
    hard = root / "hard"
    shutil.copy2(hard / "z.file", hard / "copy")
    os.replace(hard / "copy", hard / "z.file")  # no link any more, the same content
    (hard / "a/file").unlink()
    (hard / "a/file").write_text("another file\n")
    os.unlink(hard / "n1")
    os.link(hard / "m1", hard / "0 the first name now")
    os.link(hard / "z.link", hard / "b/c/again", follow_symlinks=False)
    times = root / "times"
    status = (times / "file.5").stat()
    same = odd / "file/$HOME"
    before = same.stat()
    same.write_bytes(b"CONTENT of $HOME")
    os.utime(same, ns=(before.st_atime_ns, before.st_mtime_ns))
    (times / "file.5").chmod(0o600)
    os.utime(times / "file.5", ns=(1, status.st_mtime_ns))
    sizes = root / "sizes"
    with open(sizes / "sparse", "r+b") as stream:
        stream.seek(65_000_000)
        stream.write(b"changed")
    with open(sizes / "holes with\na new line", "r+b") as stream:
        stream.seek(1 << 21)
        stream.write(b"changed")
    (sizes / "zero").write_bytes(b"one")
    (sizes / "one").write_bytes(b"")
    deep = root / "deep"
    os.rename(deep / ("s"), deep / "renamed")
    os.chown(odd / "directory.0644", 0, 0)
    os.chmod(odd / "file.4755", 0o755)
    os.chown(odd / "owner.l.1", 5, 6, follow_symlinks=False)
