"""Where an osimage may be served from: nothing that is somebody else's is moved aside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.serve import place
from xcat_avs.serve.place import Surroundings
from xcat_avs.serve.sets import PackedSet, Target
from xcat_avs.system import mounts

IMAGE = OsImage("img.prod", {})
RECORD = PackedSet("img.prod", "img.prod", "v1", 3, "2026-01-02T03:04:05Z", "alice", "rootimg.cpio.gz")


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    netboot = tmp_path / "install/netboot"
    (netboot / "x").mkdir(parents=True)
    public = {"INSTALLDIR": tmp_path / "install", "TFTPDIR": tmp_path / "tftpboot"}
    private = {"the state directory": tmp_path / "var/state", "the store": tmp_path / "var/repo"}
    return Surroundings(public, private, {"img.other": netboot / "x/other", "img.twin": netboot / "x/prod"}, "Do that.")


def refuse(path: Path, around: Surroundings) -> str:
    """What is said of a rootimgdir, or ""."""
    text = ""
    try:
        place.refuse(Target(IMAGE, path), around)
    except AvsError as err:
        text = err.text
    assert not text or text.startswith(f"img.prod: rootimgdir {path} ")
    assert not text or text.endswith("; nothing was changed. Do that.")
    return text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("install", "is INSTALLDIR"), ("tftpboot", "is TFTPDIR"), (".", "holds INSTALLDIR"), ("var", "holds the state directory"),
        ("var/state", "is the state directory"), ("var/state/builds/x", "lies in the state directory"), ("var/repo/db", "lies in the store"),
        ("install/netboot", "holds that of the osimage img.other"), ("install/netboot/x/other/rootimg", "lies in that of the osimage img.other"),
        ("install/netboot/x/other", ""), ("install/netboot/x/prod", ""), ("install/netboot/x/new", ""), ("elsewhere/images/prod", ""),
    ],
)  # fmt: skip
def test_places(tmp_path: Path, around: Surroundings, path: str, said: str) -> None:
    """Two osimages may share one directory on purpose."""
    found = refuse(Path(os.path.normpath(tmp_path / path)), around)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("path", "said"), [("/root", "is the home of root"), ("/images", "lies directly below /"), ("/home", "is /home")]
)
def test_places_of_every_machine(around: Surroundings, path: str, said: str) -> None:
    assert said in refuse(Path(path), around)


def test_a_place_through_a_link(tmp_path: Path, around: Surroundings) -> None:
    (tmp_path / "images").symlink_to(tmp_path / "install")
    assert "holds that of the osimage img.other" in refuse(tmp_path / "images/netboot", around)
    (tmp_path / "disk").mkdir()
    (tmp_path / "tftpboot").symlink_to(tmp_path / "disk")
    assert "is TFTPDIR" in refuse(tmp_path / "disk", around)
    (tmp_path / "install/netboot/x/prod").symlink_to(tmp_path / "install")
    assert refuse(tmp_path / "install/netboot/x/prod", around) == "", "a link is replaced, and nothing else"


def test_a_link_that_others_are_reached_through(tmp_path: Path, around: Surroundings) -> None:
    """INSTALLDIR/netboot on another disk: as a rootimgdir it would be replaced, and all images below be gone for their nodes."""
    (tmp_path / "install/netboot").rename(tmp_path / "disk")
    (tmp_path / "install/netboot").symlink_to("../disk")
    assert "holds that of the osimage img.other" in refuse(tmp_path / "install/netboot", around)
    assert "holds that of the osimage img.other" in refuse(tmp_path / "disk", around)
    assert refuse(tmp_path / "install/netboot/x/prod", around) == ""
    (tmp_path / "var").symlink_to("disk")
    assert "holds the state directory" in refuse(tmp_path / "var", around)


WHOLE = ("rootimg/", "kernel", "initrd-stateless.gz", "initrd-statelite.gz", "rootimg.cpio.gz")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), ""), (WHOLE, ""), (("rootimg.gz",), ""), (("rootimg/",), ""), ((*WHOLE, ".statelite/", "addons/", "build_info/", "avs.json"), ""),
        ((*WHOLE, "rootimg.cpio.gz.metainfo", "kernel.old", "rootimg_alt.sfs"), ""),
        ((*WHOLE, "notes.txt"), "it holds notes.txt"), (("netboot/", "custom/", "postscripts/"), "custom, netboot, postscripts"),
        (tuple(f"f{number}" for number in range(9)), "f0, f1, f2, f3, f4 and 4 more"), (("initrd-stateless.gz",), "neither rootimg nor kernel"),
        (("rootimg/", "new\nline"), "new\\nline"), (("kernels/", "rootimg/"), "kernels"),
    ],
)  # fmt: skip
def test_what_a_directory_holds(tmp_path: Path, around: Surroundings, names: tuple[str, ...], said: str) -> None:
    directory = tmp_path / "install/netboot/x/prod"
    directory.mkdir()
    for name in names:
        (directory / name).mkdir() if name.endswith("/") else (directory / name).touch()
    found = refuse(directory, around)
    assert said in found
    assert bool(found) == bool(said)


def test_a_file(tmp_path: Path, around: Surroundings) -> None:
    (tmp_path / "install/netboot/x/prod").write_text("precious")
    assert "is a file" in refuse(tmp_path / "install/netboot/x/prod", around)


def test_a_mounted_file_system(tmp_path: Path, around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "install/netboot/x/prod"
    directory.mkdir()
    monkeypatch.setattr(mounts, "mounts_below", lambda path: [str(directory)])
    assert "root of a mounted file system" in refuse(directory, around)


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ("img.prod", ""),
        ("img.twin", ""),
        ("img.other", "tag v1 of the osimage img.other"),
        ("img.gone", "tag v1 of the osimage img.gone"),
    ],
)
def test_the_set_of_another_osimage(tmp_path: Path, around: Surroundings, owner: str, said: str) -> None:
    directory = tmp_path / "install/netboot/x/prod"
    directory.mkdir()
    (directory / "rootimg.gz").touch()
    (directory / "avs.json").write_text(json.dumps(asdict(replace(RECORD, osimage=owner))))
    found = refuse(directory, around)
    assert said in found
    assert bool(found) == bool(said)
    assert "where tag v1 of" in refuse(directory / "rootimg/sub", replace(around, others={}))


@pytest.mark.parametrize(
    ("make", "good"),
    [
        (lambda path: (path / "rootimg.gz").touch(), True), (lambda path: (path / "rootimg").mkdir(), True),
        (lambda path: (path / "kernel").touch(), False), (lambda path: path.rmdir(), False),
    ],
)  # fmt: skip
def test_what_is_an_image(tmp_path: Path, make: Callable[[Path], object], good: bool) -> None:
    directory = tmp_path / "prod"
    directory.mkdir()
    make(directory)
    assert place.is_image(directory) == good
