"""The kernel modules of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from xcat_avs import modules
from xcat_avs.errors import AvsError


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")


def test_the_newest_kernel_that_is_whole(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/modules/5.14.0-9.el9/extra/a.ko", "usr/lib/modules/5.14.0-70.el9/vmlinuz", "usr/lib/modules/6.1.0-1/extra/a.ko",
        "boot/vmlinuz-5.14.0-9.el9", "boot/vmlinuz-5.14.0-70.el9")  # fmt: skip
    (tmp_path / "lib").symlink_to("/usr/lib")
    assert modules.kernel(tmp_path) == "5.14.0-70.el9"
    assert modules.kernel(tmp_path, "5.14.0-9.el9") == "5.14.0-9.el9"
    with pytest.raises(
        AvsError, match=r"no modules of kernel 5\.15 in lib/modules; there is 5\.14\.0-9\.el9, 5\.14\.0-70\.el9"
    ):
        modules.kernel(tmp_path, "5.15")


def test_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(AvsError, match="there is none"):
        modules.kernel(tmp_path)
    put(tmp_path, "lib/modules/5.9/modules.dep", "lib/modules/5.10/modules.dep")
    assert modules.kernel(tmp_path) == "5.10"


def test_missing(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(
            f"lib/modules/5.10/extra/{name}"
            for name in ("zfs.ko.xz", "osd_ldiskfs.ko", "ib-ipoib.ko.zst", "lustre.ko.bak")
        ),
    )
    put(tmp_path, "lib/modules/5.9/extra/lnet.ko")
    names = ["zfs", "osd-ldiskfs", "ib_ipoib", "lustre", "lnet"]
    assert modules.missing(tmp_path, "5.10", names) == ["lustre", "lnet"]
