"""Mounts as this process sees them, and trees that are removed without going through one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.system import chroot, mounts
from xcat_avs.tree import manifest, scan

TOP = Path(__file__).resolve().parents[2]
LIST = "import sys; from xcat_avs.system import mounts; print(*map(ascii, mounts.mounts_below(sys.argv[1])), sep='\\n')"
REMOVE = (
    "import sys; from pathlib import Path; from xcat_avs.system import mounts; mounts.remove_tree(Path(sys.argv[1]))"
)


def privately(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run in a mount namespace of its own, so that the machine's is left alone."""
    line = ["unshare", "--mount", "--propagation", "private", *argv]
    return subprocess.run(line, cwd=TOP, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with space",
        "tab\t",
        "back\\slash",
        "caf\u00e9",
        "\u0142\u00f3d\u017a",
        "\u65e5\u672c",
        "new\nline",
        "#x",
    ],
)
def test_mounts_below(tmp_path: Path, name: str) -> None:
    """A name that is not ASCII, anywhere on the machine, is no reason to fail: a stick at /media/USER/DISK has it."""
    point = tmp_path / "tree" / name
    point.mkdir(parents=True)
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4"'
    done = privately("sh", "-c", script, "sh", str(point), sys.executable, LIST, str(tmp_path / "tree"))
    assert done.stderr == ""
    assert done.stdout == ascii(str(point)) + "\n"


def test_a_mount_beside_is_not_below(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree2").mkdir()
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4"'
    done = privately("sh", "-c", script, "sh", str(tmp_path / "tree2"), sys.executable, LIST, str(tmp_path / "tree"))
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_remove_tree_does_not_go_through_a_mount(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("x")
    (tmp_path / "tree/sub/point").mkdir(parents=True)
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$5"'
    done = privately(
        "sh", "-c", script, "sh", str(tmp_path / "precious"), str(tmp_path / "tree/sub/point"), sys.executable, REMOVE,
        str(tmp_path / "tree"),
    )  # fmt: skip
    assert "mounted below it" in done.stderr
    assert (tmp_path / "precious/file").read_text() == "x"


def test_remove_tree(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/link").symlink_to(tmp_path / "outside")
    mounts.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    mounts.remove_tree(tmp_path / "link")
    (tmp_path / "file").touch()
    mounts.remove_tree(tmp_path / "file")
    mounts.remove_tree(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside/file").exists()


def test_mounted_is_undone_and_a_busy_one_is_named(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from xcat_avs.system import chroot, mounts
from xcat_avs.tree import manifest
from xcat_avs.errors import AvsError
point = Path({str(tmp_path)!r})
with mounts.mounted("none", point, "tmpfs"):
    (point / "x").touch()
    assert mounts.mounts_below(point) == [str(point)]
assert mounts.mounts_below(point) == [] and not (point / "x").exists()
try:
    with mounts.mounted("none", point, "tmpfs"):
        held = open(point / "x", "w")
except AvsError as err:
    print(err)
try:
    with mounts.mounted("none", point / "missing", "tmpfs"):
        pass
except AvsError as err:
    print(err)
"""
    lines = privately(sys.executable, "-c", script).stdout.split("\n")
    assert lines[0].startswith(f"cannot unmount {tmp_path}: Device or resource busy; in use by process ")
    assert lines[1].startswith(f"cannot mount none at {tmp_path}/missing: ")


def test_an_image_root_with_a_link_for_dev(tmp_path: Path) -> None:
    (tmp_path / "dev").symlink_to("/dev")
    with pytest.raises(AvsError, match="dev is a symbolic link"), chroot.chroot_mounts(tmp_path):
        pytest.fail("mounted over the host's")
    assert [path.name for path in tmp_path.iterdir()] == ["dev"], "what was made for the mounts is gone"


# What goes on in a private namespace; prints what it saw.
NAMESPACE = """
import os, subprocess, sys
from pathlib import Path
from xcat_avs.system import chroot, mounts
from xcat_avs.tree import manifest
top = Path(sys.argv[1])
def worker():
{body}
code = mounts.enter_private_namespace()
if code is None:
    worker()
    sys.stdout.flush()
    os._exit(0)
sys.exit(code)
"""


def in_namespace(top: Path, body: str) -> str:
    """What a piece of a program says that runs in a private namespace of its own."""
    text = NAMESPACE.format(body="".join(f"    {line}\n" for line in body.strip().split("\n")))
    done = subprocess.run(
        [sys.executable, "-c", text, str(top)], cwd=TOP, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_what_a_package_says_of_the_covered_directories_stays(tmp_path: Path) -> None:
    """It sets them while it is installed, and they are covered then."""
    for name in ("proc", "dev", "sys"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name).chmod(0o700)
    said = in_namespace(
        tmp_path,
        """
root = top / "root"
with chroot.chroot_mounts(root):
    print([oct((root / name).stat().st_mode & 0o7777) for name in chroot.POINTS])
    print((root / "dev/null").is_char_device(), (root / "proc/self").exists(), (root / "sys/kernel").is_dir())
    try:
        (root / "sys/kernel/x").touch()
    except OSError as err:
        print(err.strerror)
    for name in ("proc", "sys", "dev"):
        os.chmod(root / name, 0o555)
        os.chown(root / name, 0, 5)
        os.utime(root / name)
    (root / "dev/left").touch()
print(mounts.mounts_below(root))
""",
    )
    lines = said.splitlines()
    assert lines[:2] == ["['0o700', '0o700', '0o700', '0o755']", "True True True"]
    assert lines[2] in ("Read-only file system", "Permission denied")
    assert lines[3:] == ["[]"]
    found = {path.name: path.stat() for path in (tmp_path / "root").iterdir()}
    assert {name: (oct(status.st_mode & 0o7777), status.st_gid) for name, status in found.items()} == dict.fromkeys(
        ("proc", "sys", "dev"), ("0o555", 5)
    )
    assert [list(path.iterdir()) for path in (tmp_path / "root").iterdir()] == [[], [], []]


def test_in_memory_is_seen_by_us_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "before").write_text("x")
    said = in_namespace(
        tmp_path,
        """
place = top / "place"
with mounts.in_memory(place, 1 << 20):
    print(mounts.mounts_below(place) == [str(place)], os.listdir(place), os.stat(place).st_mode & 0o777 == 0o700)
    (place / "inside").write_bytes(b"x" * (1 << 21))
    print(Path("/proc/1/root/%s/inside" % place).exists())
    (top / "ready").touch()
    sys.stdin.read()
print(mounts.mounts_below(place), os.listdir(place))
""",
    )
    assert said.split("\n") == ["True [] True", "True", "[] ['before']", ""]
    assert [path.name for path in place.iterdir()] == ["before"]


def test_in_memory_ends_with_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    said = in_namespace(
        tmp_path,
        """
try:
    with mounts.in_memory(top / "place", 1):
        (top / "place/x").touch()
        raise KeyError("the first error")
except KeyError as err:
    print(err, mounts.mounts_below(top), os.listdir(top / "place"))
""",
    )
    assert said == "'the first error' [] []\n"


def test_in_memory_does_nothing_where_memory_is_short(tmp_path: Path) -> None:
    """What is written goes to the disk as before."""
    (tmp_path / "place").mkdir()
    said = in_namespace(
        tmp_path,
        """
with mounts.in_memory(top / "place", 1 << 60):
    print(mounts.mounts_below(top))
    (top / "place/kept").touch()
""",
    )
    assert said == "[]\n"
    assert (tmp_path / "place/kept").exists()


def test_in_memory_does_nothing_where_others_would_see_it(tmp_path: Path) -> None:
    with mounts.in_memory(tmp_path, 1):
        assert mounts.mounts_below(tmp_path) == []
        (tmp_path / "kept").touch()
    assert (tmp_path / "kept").exists()


def test_in_memory_says_when_it_is_full(tmp_path: Path) -> None:
    """It takes a part of the memory that is free, never all."""
    (tmp_path / "place").mkdir()
    said = in_namespace(
        tmp_path,
        """
with mounts.in_memory(top / "place", 1):
    size = os.statvfs(top / "place").f_blocks * os.statvfs(top / "place").f_frsize
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    print(size < int(fields["MemTotal"].split()[0]) * 1024 // 3, size > 1 << 20)
""",
    )
    assert said == "True True\n"


OVERLAY = """
lower, work = top / "lower", top / "work/overlay"
with mounts.overlay(lower, work) as view:
    print(sorted(os.listdir(view)), (view.stat().st_mode & 0o7777) == 0o2750, view.stat().st_uid)
    (view / "file").unlink()
    (view / "new").write_text("new")
    (view / "d/inner").write_text("changed")
    subprocess.run(["mv", str(view / "e"), str(view / "d/e")], check=True)
    os.setxattr(view / "d/inner", "user.x", b"1")
    print(os.stat(view / "one").st_ino == os.stat(view / "two").st_ino, os.getxattr(view / "one", "user.y"))
    print(sorted(os.listdir(view)), sorted(os.listdir(view / "d")), (view / "d/inner").read_text())
print(mounts.mounts_below(top))
"""


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    top = tmp_path / "lower"
    for name in ("d", "e"):
        (top / name).mkdir(parents=True)
    for name in ("file", "d/inner", "e/inner", "one"):
        (top / name).write_text(name)
    (top / "two").hardlink_to(top / "one")
    os.setxattr(top / "one", "user.y", b"2")
    os.chown(top, 12345, 54321)
    top.chmod(0o2750)
    return top


def test_overlay_leaves_what_is_below_as_it_is(tmp_path: Path, lower: Path) -> None:
    before = scan.scan(str(lower))
    (tmp_path / "work/overlay/upper/stale").mkdir(parents=True)
    said = in_namespace(tmp_path, OVERLAY)
    assert said.split("\n") == [
        "['d', 'e', 'file', 'one', 'two'] True 12345", "True b'2'", "['d', 'new', 'one', 'two'] ['e', 'inner'] changed", "[]", "",
    ]  # fmt: skip
    assert manifest.compare(before, scan.scan(str(lower)), times=True) == []
    assert mounts.mounts_below(tmp_path) == []


def test_overlay_where_the_file_system_below_cannot_hold_one(tmp_path: Path, lower: Path) -> None:
    """An overlay is no place for the upper side of another: that goes to memory then."""
    body = """
for name in ("base", "up", "wk", "work"):
    (top / name).mkdir()
with mounts.mounted("overlay", top / "work", "overlay", 0, f"lowerdir={top}/base,upperdir={top}/up,workdir={top}/wk"):
""" + "".join(f"    {line}\n" for line in OVERLAY.strip().split("\n")[:-1])
    before = scan.scan(str(lower))
    said = in_namespace(tmp_path, body + "print(mounts.mounts_below(top))")
    assert said.split("\n")[1:] == ["True b'2'", "['d', 'new', 'one', 'two'] ['e', 'inner'] changed", "[]", ""]
    assert manifest.compare(before, scan.scan(str(lower)), times=True) == []


@pytest.mark.parametrize("name", ["with space", "é", "a:b", "a,b", "back\\slash"])
def test_overlay_of_any_name(tmp_path: Path, lower: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.rename(lower, tmp_path / name / "lower")
    said = in_namespace(tmp_path / name, OVERLAY)
    assert "changed" in said
    assert (tmp_path / name / "lower/d/inner").read_text() == "d/inner"
