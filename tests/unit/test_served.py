"""What nodes will boot: the published set beside the copies in TFTPDIR."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from xcat_avs import served
from xcat_avs.image import OsImage
from xcat_avs.pack.publish import RECORD, PackedSet
from xcat_avs.served import Served

NAME = "rocky9.4-x86_64-netboot-compute"
IMAGE = OsImage(NAME, {"osvers": "rocky9.4", "osarch": "x86_64", "profile": "compute", "provmethod": "netboot"})


class Directories:
    """INSTALLDIR and TFTPDIR with one published image."""

    def __init__(self, top: Path) -> None:
        self.installdir, self.tftpdir = top / "install", top / "tftpboot"
        self.rootimgdir = IMAGE.rootimgdir(self.installdir)
        self.copies = self.tftpdir / "xcat/osimage" / NAME

    def publish(self, **files: bytes) -> None:
        names = {"kernel": "kernel", "initrd": "initrd-stateless.gz", "archive": "rootimg.cpio.gz"}
        self.rootimgdir.mkdir(parents=True, exist_ok=True)
        described: dict[str, dict[str, object]] = {}
        for key, data in {"archive": b"archive", **files}.items():
            (self.rootimgdir / names[key]).write_bytes(data)
            described[names[key]] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        record = PackedSet(NAME, NAME, "v1", 1, "2026-01-02T03:04:05Z", "user", "rootimg.cpio.gz", "", described)
        (self.rootimgdir / RECORD).write_text(json.dumps(asdict(record)))

    def copy(self, **files: bytes) -> None:
        self.copies.mkdir(parents=True, exist_ok=True)
        for key, data in files.items():
            (self.copies / {"kernel": "kernel", "initrd": "initrd-stateless.gz"}[key]).write_bytes(data)

    def look(self, *nodes: str) -> Served:
        return served.look(
            IMAGE, self.installdir, self.tftpdir, {"other": "another image", **dict.fromkeys(nodes, NAME)}
        )


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories(tmp_path)


def test_nothing_published(directories: Directories) -> None:
    state = directories.look("cn001")
    assert (state.record, state.coherent, state.nodeset_due) == (None, "-", False)


def test_before_the_first_nodeset(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    state = directories.look("cn001", "cn002", "cn003")
    assert (state.coherent, state.differing, state.nodeset_due) == ("-", (), True)
    assert state.nodeset == ("nodeset", "cn001-cn003", f"osimage={NAME}")
    lines = served.advice(state)
    assert lines[0] == "Used by 3 nodes: cn001-cn003"
    assert lines[-1] == f"Before they reboot: nodeset cn001-cn003 osimage={NAME}"


def test_the_same_kernel_and_initrd(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    state = directories.look("cn001")
    assert (state.coherent, state.nodeset_due) == ("yes", False)
    assert "a reboot is enough" in served.advice(state)[-1]
    assert not any("nodeset" in line for line in served.advice(state))


@pytest.mark.parametrize(
    ("copies", "differing"),
    [
        ({"kernel": b"K", "initrd": b"i"}, ["kernel"]),
        ({"kernel": b"k", "initrd": b"longer"}, ["initrd-stateless.gz"]),
        ({"kernel": b"K"}, ["kernel", "initrd-stateless.gz"]),
        ({}, ["kernel", "initrd-stateless.gz"]),
    ],
)
def test_other_copies(directories: Directories, copies: dict[str, bytes], differing: list[str]) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(**copies)
    state = directories.look("cn001")
    assert (state.coherent, state.nodeset_due) == ("no", True)
    assert state.differing == tuple(str(directories.copies / name) for name in differing)
    lines = served.advice(state)
    assert [line for line in lines if line.startswith("Not the published one: ")] == [
        f"Not the published one: {path}" for path in state.differing
    ]
    assert lines[-1].startswith("Before they reboot: nodeset cn001 ")


def test_nobody_uses_it(directories: Directories) -> None:
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"old", initrd=b"old")
    state = directories.look()
    assert (state.coherent, state.nodeset_due) == ("no", False)
    assert served.advice(state) == [f"No node has provmethod {NAME}"]


def test_a_set_that_changed_below_us_is_not_believed(directories: Directories) -> None:
    """The files that are there count, not what was once written down of them."""
    directories.publish(kernel=b"k", initrd=b"i")
    directories.copy(kernel=b"k", initrd=b"i")
    (directories.rootimgdir / "kernel").write_bytes(b"x")
    assert directories.look("cn001").coherent == "no"


def test_a_directory_that_packimage_left_is_looked_at_as_well(directories: Directories) -> None:
    """After a rollback to it, its kernel counts just the same."""
    directories.publish(kernel=b"k", initrd=b"i")
    (directories.rootimgdir / RECORD).unlink()
    directories.copy(kernel=b"other", initrd=b"i")
    state = directories.look("cn001")
    assert state.record is None
    assert (state.coherent, state.nodeset_due) == ("no", True)
    directories.copy(kernel=b"k")
    assert directories.look("cn001").coherent == "yes"
