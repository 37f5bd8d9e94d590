"""A build's context on a directory, and a directory that must stay as it is."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xcat_avs.build.context import BuildContext
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings
from xcat_avs.system.progress import Progress


def untouched(host: Path) -> bool:
    found = {str(path.relative_to(host)): path.read_text() for path in host.rglob("*") if path.is_file()}
    return found == {"precious": "precious", "sub/precious": "precious"}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory outside of the image, with a file that must stay as it is."""
    directory = tmp_path / "host"
    (directory / "sub").mkdir(parents=True)
    (directory / "precious").write_text("precious")
    (directory / "sub/precious").write_text("precious")
    return directory


@pytest.fixture
def ctx(tmp_path: Path) -> BuildContext:
    paths = BuildPaths(tmp_path / "build/tree", tmp_path / "build/results", tmp_path / "logs")
    paths.root.mkdir(parents=True)
    (paths.root / "etc").mkdir()
    procedure = Procedure("mine", tmp_path / "mine.py", "site common", "Mine", {}, b"def run(ctx): pass")
    return BuildContext(
        OsImage("debian12-x86_64-netboot-example.prod", {}), Recipe((), Settings()), {}, tmp_path / "install", paths,
        tmp_path / "log", Mmdebstrap(), None, Progress(io.StringIO()), procedure,
    )  # fmt: skip


@pytest.fixture
def deep_is_removed(tmp_path: Path) -> Iterator[None]:
    """Python's own removal of a tree, which pytest uses, ends in a RecursionError where it is deep."""
    yield
    subprocess.run(["rm", "-rf", *map(str, tmp_path.iterdir())], check=True)
