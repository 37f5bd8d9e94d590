"""Which form an archive has, by what boots it and what is in the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from xcat_avs.pack import forms


@pytest.mark.parametrize(
    ("packer", "lossy", "method"),
    [("packimage", False, ""), ("packimage", True, "tar"), ("own", False, "cpio"), ("own", True, "tar")],
)
def test_auto(packer: str, lossy: bool, method: str) -> None:
    assert forms.choose("auto", packer, lossy) == method
    assert forms.choose("squashfs", packer, lossy) == "squashfs"


def test_how_a_set_is_booted() -> None:
    said = forms.how_to_boot(Path("/i/p"), "rootimg.cpio.xz")
    assert said == "Boot: kernel /i/p/kernel, initrd /i/p/rootimg.cpio.xz, command line rdinit=/sbin/init and no root="
    for name in ("rootimg.tar.gz", "rootimg.sfs"):
        assert "--method cpio" in forms.how_to_boot(Path("/i/p"), name)


def test_a_kernel_can_check_xz() -> None:
    """Its own decoder knows CRC32 and none of the others."""
    assert "--check=crc32" in forms.own("cpio", "xz").compressor()
