"""What a build will run: what is done already is known by its id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from xcat_avs import generate
from xcat_avs.build.context import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.generate import Generator
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.system import records
from xcat_avs.system.files import write_atomic

SEED, BEGUN = "seed", "begun"


@dataclass(frozen=True)
class StepResult:
    """What a step did. seconds are its own; sizes in bytes. Its file is the marker for a resume."""

    name: str
    id: str
    seconds: float
    packages_before: int
    packages_after: int
    bytes_before: int
    bytes_after: int
    started: str
    source: str
    log: str


def step_ids(recipe: Recipe, seed: str) -> list[str]:
    """An id for each step, each made of the one before it. seed: what the build starts from."""
    ids = []
    previous = seed
    for step in recipe.steps:
        previous = step_id(step, previous)
        ids.append(previous)
    return ids


def step_id(step: Step, previous: str) -> str:
    """A hash of a step's sources, its options, and the id of what it works on."""
    sha = hashlib.sha256(previous.encode())
    layer: Optional[Procedure] = step.procedure
    while layer is not None:
        sha.update(layer.source + b"\0")
        layer = layer.overridden
    sha.update(json.dumps(dict(step.options), sort_keys=True, default=str).encode())
    return sha.hexdigest()


def build_seed(image: OsImage, generator: Generator, source: Optional[Path], installdir: Path) -> str:
    """A hash of what a build starts from: the definition, every file it names, the site's files, the generator."""
    sha = hashlib.sha256(
        f"{image.stanza()}\0{generator.identity()}\0{source or ''}\0".encode("utf-8", "surrogateescape")
    )
    site = installdir / "custom/avs"
    site_files = [
        path
        for top in (site / "files", site / "images" / image.profile / "files")
        for path in top.rglob("*")
        if path.is_file()
    ]
    for path in sorted({*image.named_files(), *generate.lists(image)[0], *site_files}):
        sha.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()


def remember_seed(paths: BuildPaths, seed: str, after: str) -> None:
    """Note what the seed is now that the build has changed its own definition."""
    if after != seed and paths.results.is_dir():
        (paths.results / SEED).write_text(f"{after} {seed}\n", encoding="ascii")


def earlier_seed(paths: BuildPaths, seed: str) -> str:
    """The seed that a build began with, where seed is what the build itself made of it."""
    try:
        after, began = (paths.results / SEED).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return seed
    return began if after == seed else seed


def write_marker(marker: Path, result: Any) -> None:
    """Write the result of a step, which says that it is done, whole or not at all."""
    write_atomic(marker, json.dumps(dataclasses.asdict(result)))


def _load_result(marker: Path) -> Optional[StepResult]:
    try:
        return records.load(StepResult, marker.read_bytes())
    except OSError:
        return None  # no such step yet, or it was cut off: do it again
