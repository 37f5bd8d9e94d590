"""What of an image packimage would write through to this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack import packimage

IMAGE = OsImage("rocky9.4-x86_64-netboot-example.prod", {})


@pytest.mark.parametrize("name", packimage.WRITTEN)
@pytest.mark.parametrize("target", ["/etc", "/etc/shadow", "../../..", "/"])
def test_a_link_of_the_image_to_this_machine_is_refused(tmp_path: Path, name: str, target: str) -> None:
    root = tmp_path / "tree/rootimg"
    (root / name).parent.mkdir(parents=True)
    (root / name).symlink_to(target)
    with pytest.raises(AvsError, match=f"/{name} of the image leads out of it, to /"):
        packimage._refuse_ways_out(root, IMAGE)


def test_a_link_within_the_image_is_none(tmp_path: Path) -> None:
    root = tmp_path / "tree/rootimg"
    (root / "usr/etc").mkdir(parents=True)
    (root / "etc").symlink_to("usr/etc")
    (root / "usr/etc/shadow").symlink_to("../shadow")
    (root / "opt").symlink_to("usr")
    packimage._refuse_ways_out(root, IMAGE)
