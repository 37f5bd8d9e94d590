"""Mounts as this process sees them, and trees that are removed without going through one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xcat_avs import mounts
from xcat_avs.errors import AvsError

TOP = Path(__file__).resolve().parents[2]
LIST = "import sys; from xcat_avs import mounts; print(*map(ascii, mounts.mounts_below(sys.argv[1])), sep='\\n')"
REMOVE = "import sys; from pathlib import Path; from xcat_avs import mounts; mounts.remove_tree(Path(sys.argv[1]))"


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
from xcat_avs import mounts
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
    with pytest.raises(AvsError, match="dev is a symbolic link"), mounts.chroot_mounts(tmp_path):
        pytest.fail("mounted over the host's")
    assert [path.name for path in tmp_path.iterdir()] == ["dev"], "what was made for the mounts is gone"
