"""What avs.conf says of all packages of an image of debs, by the real mmdebstrap and the machine's own apt."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from integration.harness import ARCH, Installation, osimage_name

pytestmark = pytest.mark.slow

OSVERS, PROFILE = "debian12", "small"
BUILD_SECONDS = 400  # a build from a mirror, on a busy machine


def files(root: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(root)) for path in root.glob(pattern) if path.is_file()}


def test_without_documentation_and_with_one_language(installation: Installation) -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("not installed: mmdebstrap")
    if subprocess.run(["dpkg", "--print-architecture"], capture_output=True, check=True).stdout != b"amd64\n":
        pytest.skip(f"the image is of {ARCH}")
    pkglist = installation.top / "small.pkglist"
    pkglist.write_text("less\n")
    installation.define(PROFILE, OSVERS, pkglist=str(pkglist))
    installation.configure(
        "image", install_docs="no", install_locales="de", package_manager_args="-oAcquire::Retries=2"
    )
    text = '"""Add a package"""\n\n\ndef run(ctx):\n    ctx.install_packages("patch")\n'
    installation.site_file("procedures/debian/more.py", text)
    # What is looked at is the tree; the last step spares the time of a commit.
    installation.site_file("procedures/debian/stop.sh", "#!/bin/sh\nexit 9\n", 0o755)
    installation.recipe("prepare_image_directory", "generate_image", "more", "stop", profile=PROFILE)
    result = installation.finish(installation.start("create", PROFILE), BUILD_SECONDS)
    assert "step stop failed" in result.error
    root = installation.tree(PROFILE, OSVERS) / "rootimg"
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
    log = (installation.logs / osimage_name(PROFILE, OSVERS) / "generate_image.log").read_text()
    assert re.search(r'^\+ mmdebstrap .*--aptopt=Acquire::Retries "2";', log, re.MULTILINE)

    installation.configure("image", package_manager_args="--allow-downgrades")
    assert "mmdebstrap only takes -oNAME=VALUE" in installation.run("create", PROFILE, code=1).error
