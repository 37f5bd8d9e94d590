"""build_info: what a version says of how it was built."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from xcat_avs import generate
from xcat_avs.build.building import Built
from xcat_avs.build.failure import TEST
from xcat_avs.build.job import BuildJob
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.system import masking, mounts
from xcat_avs.tree import packages, scan


def step_reports(paths: BuildPaths, recipe: Recipe) -> dict[str, list[str]]:
    """What steps, and the tests, have to say in the report: step -> lines."""
    said = {name: paths.report(name) for name in [*(step.name for step in recipe.steps), TEST]}
    return {name: path.read_text(encoding="utf-8").splitlines() for name, path in said.items() if path.is_file()}


def write_build_info(job: BuildJob, built: Built, report: str, provenance: Mapping[str, Any]) -> str:
    """Write build_info/ into the tree: the report, the results, the logs, the packages, and under inputs/ all it came from.

    Returns what is wrong with the image's package database, or "".
    """
    paths = job.paths
    info = paths.tree / "build_info"
    mounts.remove_tree(info)
    (info / "logs").mkdir(parents=True)
    masking.write(info / "report", report)
    for name, rows in (("steps.json", built.steps), ("addons.json", built.addons)):
        if rows or name == "steps.json":
            text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n"
            masking.write(info / name, text)
    installed, problem = packages.examine(paths.root)
    (paths.tree / packages.STORED).write_text(packages.dump(installed), encoding="utf-8")
    facts = {**provenance, "packages": len(installed), "bytes": scan.tree_size(str(paths.root)),
             "seconds": round(sum(row.seconds for row in built.steps) + sum(row.seconds for row in built.addons), 1)}  # fmt: skip
    masking.write(info / "provenance.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
    for log in [*(step.log for step in built.steps), *(addon.log for addon in built.addons)]:
        if os.path.exists(log):
            masking.copy(Path(log), info / "logs" / os.path.basename(log))
    _write_inputs(info / "inputs", built.image, job.recipe)
    return problem


def _write_inputs(inputs: Path, image: OsImage, recipe: Recipe) -> None:
    """What the version came from: recipe, procedures, definition, and the files that it names."""
    (inputs / "procedures").mkdir(parents=True)
    masking.write(inputs / "recipe.conf", recipe.text())
    masking.write(inputs / "osimage.stanza", image.stanza())
    places = [("procedures", step) for step in recipe.steps] + [("addons", step) for step in recipe.addons]
    for place, step in places:
        layer: Optional[Procedure] = step.procedure
        while layer is not None:
            target = inputs / place / layer.layer.replace(" ", ".") / layer.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(masking.data(layer.source))
            layer = layer.overridden
    for path in sorted({*image.named_files(), *generate.lists(image)[0]}):
        target = inputs / "files" / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        masking.copy(path, target)
