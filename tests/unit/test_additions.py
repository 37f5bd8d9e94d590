"""What a pack adds to the tree of a tag."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.pack import additions
from xcat_avs.tree.manifest import Entry, Manifest, Xattrs

PING = ("security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
ACL = ("system.posix_acl_access", b"\x02\x00\x00\x00")
LABEL = ("security.selinux", b"label\0")
OURS = {additions.XATTRS, additions.SET_XATTRS, additions.UNIT, additions.WANTED}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/bin/systemctl", "usr/bin/ping", "usr/sbin/setcap", "var/a b", "var/gone"):
        (tmp_path / "rootimg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rootimg" / name).touch()
    return tmp_path / "rootimg"


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def entry(path: str, *xattrs: tuple[str, bytes]) -> Entry:
    return Entry(path, "file", 0o755, 0, 0, 0, xattrs=xattrs)


def test_what_cpio_cannot_hold() -> None:
    entries = [entry("rootimg/usr/bin/ping", LABEL, PING), entry("rootimg/x", LABEL), entry("addons/a/rootimg/y", PING)]
    stored: Manifest = {item.path: item for item in entries}
    assert additions.rich(stored) == {"usr/bin/ping": (PING,)}


@pytest.mark.parametrize("osimage", ["", "an-osimage"])
def test_an_image_says_what_it_is(root: Path, osimage: str) -> None:
    """Only where xCAT serves it, in xCAT's own place as well."""
    before = files(root)
    added = additions.release(root, {"AVS_TAG": "v1"}, osimage, "an image")
    assert added == ["etc", *(["opt"] if osimage else [])]
    assert files(root) - before == {additions.RELEASE, *([additions.XCATINFO] if osimage else [])}
    assert (root / additions.RELEASE).read_text() == "AVS_TAG='v1'\n"
    if osimage:
        assert (root / additions.XCATINFO).read_text() == "IMAGENAME='an-osimage'\nAVS_TAG='v1'\n"


@pytest.mark.parametrize(
    ("tools", "lost"),
    [(["usr/bin/setfattr"], []), ([], ["var/a b"])],
)
def test_it_is_set_at_boot(root: Path, tools: list[str], lost: list[str]) -> None:
    before = files(root)
    wanted: dict[str, Xattrs] = {"usr/bin/ping": (PING,), "var/a b": (ACL,), "not/here": (PING,)}
    for name in tools:
        (root / name).touch()
    assert additions.lost_at_boot(root, wanted) == lost
    additions.xattrs_at_boot(root, wanted, "an image")
    assert files(root) - before - set(tools) == OURS
    assert (root / additions.XATTRS).read_text() == (
        f"usr/bin/ping security.capability 0x{PING[1].hex()} 13=p\nvar/a\\0040b system.posix_acl_access 0x02000000\n"
    ).replace("13=p", "13=ep")
    assert {path.stat().st_mtime for path in map(root.joinpath, OURS)} == {0}


@pytest.mark.parametrize("missing", ["usr/sbin/setcap", "usr/bin/systemctl"])
def test_what_nothing_can_set_is_said_and_nothing_is_written(root: Path, missing: str) -> None:
    (root / missing).unlink()
    before = files(root)
    assert additions.lost_at_boot(root, {"usr/bin/ping": (PING,)}) == ["usr/bin/ping"]
    assert additions.xattrs_at_boot(root, {"usr/bin/ping": (PING,)}, "an image") == []
    assert files(root) == before


def test_an_image_of_which_cpio_holds_all_gets_nothing(root: Path) -> None:
    before = files(root)
    assert additions.lost_at_boot(root, {"not/here": (PING,)}) == []
    assert additions.xattrs_at_boot(root, {"not/here": (PING,)}, "an image") == []
    assert files(root) == before


def test_no_link_leads_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (root / "etc").symlink_to(tmp_path / "host")
    with pytest.raises(AvsError, match="an image: /etc of the image leads out of it"):
        additions.put(root, additions.RELEASE, "x", "an image")
    assert list((tmp_path / "host").iterdir()) == []


def test_the_script_goes_on_and_says_what_it_could_not_set(tmp_path: Path) -> None:
    """setfattr is one that notes what it is asked, and fails for one of the paths."""
    fake = tmp_path / "bin/setfattr"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{tmp_path}/asked\necho >>{tmp_path}/asked\n[ "$6" != /bad ]\n')
    fake.chmod(0o755)
    (tmp_path / "set-xattrs").write_text(additions.SCRIPT)
    (tmp_path / "xattrs").write_text("a\\0040b user.x 0x01\nbad user.y -\nlast security.capability 0x02 13=ep\n")
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", tmp_path / "set-xattrs"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "/bad: user.y is not set\n")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [
        "-h|-n|user.x|-v|0x01|/a b|", "-h|-n|user.y|-v||/bad|", "-h|-n|security.capability|-v|0x02|/last|",
    ]  # fmt: skip
