"""What avs.conf says of all packages of an image of debs, by the real mmdebstrap and the machine's own apt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration.harness import Installation

pytestmark = pytest.mark.slow

OSVERS, PROFILE = "debian12", "small"


def files(root: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(root)) for path in root.glob(pattern) if path.is_file()}


def test_without_documentation_and_with_one_language(small_debian_build: Path) -> None:
    root = small_debian_build / "rootimg"
    assert (root / "usr/bin/less").exists()
    assert (root / "usr/bin/patch").exists()
    # dpkg is unpacked by mmdebstrap itself, less by apt, patch by apt in the image.
    for name in ("dpkg", "less", "patch"):
        assert files(root, f"usr/share/doc/{name}/*") == {f"usr/share/doc/{name}/copyright"}
    assert files(root, "usr/share/man/**/*") == set()
    assert (root / "usr/share/man/man1").is_dir(), "packages count on the directories"
    languages = {path.parts[-3] for path in (root / "usr/share/locale").glob("*/LC_MESSAGES/*.mo")}
    assert languages - {"de_AT", "de_CH"} == {"de"}
    for name in ("etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/apt/apt.conf.d/99mmdebstrap"):
        assert not (root / name).exists()
    log = (small_debian_build / "generate_image.log").read_text()
    assert re.search(r'^\+ mmdebstrap .*--aptopt=Acquire::Retries "2";', log, re.MULTILINE)


def test_arguments_that_mmdebstrap_does_not_take(installation: Installation) -> None:
    pkglist = installation.top / "small.pkglist"
    pkglist.write_text("less\n")
    installation.define(PROFILE, OSVERS, pkglist=str(pkglist))
    installation.configure("image", package_manager_args="--allow-downgrades")
    assert "mmdebstrap only takes -oNAME=VALUE" in installation.run("create", PROFILE, code=1).error
