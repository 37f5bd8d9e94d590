"""Builds: steps run one after the other on a tree, timed, measured, logged and resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from xcat_avs import command, generate, manifest, mounts, packages, records
from xcat_avs.context import BuildContext, BuildPaths, perform
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import Generator
from xcat_avs.image import OsImage
from xcat_avs.procedure import Procedure
from xcat_avs.progress import Progress
from xcat_avs.recipe import Recipe, Step
from xcat_avs.report import utc_now

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


class StepFailed(AvsError):
    """A step failed; results: the steps that were done before it."""

    results: tuple[StepResult, ...] = ()


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


ContextFor = Callable[[Step, Path], BuildContext]


def run_steps(
    ctx_for: ContextFor, recipe: Recipe, paths: BuildPaths, seed: str, resume: bool, progress: Progress
) -> list[StepResult]:
    """Run the steps of a recipe; with resume, only from the first that is not done as it would be now.

    ctx_for(step, log): the context of a step. Raises StepFailed with the results so far.
    """
    results: list[StepResult] = []
    begun = paths.results / BEGUN
    gone = [name for name in _lines(begun) if name not in {step.name for step in recipe.steps}]
    if resume and gone:
        progress.say(f"{gone[0]}: was a step of this build and is none now; beginning again")
        resume = False
    if not resume:
        for old in (paths.results, paths.tree):
            mounts.remove_tree(old)
    for directory in (paths.results, paths.logs, paths.tree.parent):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number, (step, identity) in enumerate(zip(recipe.steps, step_ids(recipe, seed))):
        marker = paths.results / f"{number:02d}-{step.name}.json"
        done = _load_result(marker) if resume else None
        if done is not None and done.id == identity and paths.root.is_dir():
            progress.say(f"{step.name}: done before, not repeated")
            results.append(done)
            continue
        if resume:
            resume = False
            if number == 0:
                mounts.remove_tree(paths.tree)  # nothing of it is used
            for stale in sorted(paths.results.glob("*.json"))[number:]:
                stale.unlink()
        log = paths.logs / f"{step.name}.log"
        with open(begun, "a", encoding="utf-8") as stream:
            stream.write(f"{step.name}\n")
        progress.begin(step.name)
        try:
            with failing(f"step {step.name}", log, results):
                result = _run_step(ctx_for(step, log), step, identity, log)
        finally:
            progress.end()
        write_marker(marker, result)
        results.append(result)
    return results


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def _run_step(ctx: BuildContext, step: Step, identity: str, log: Path) -> StepResult:
    log.write_bytes(b"")
    ctx.paths.report(step.name).unlink(missing_ok=True)
    started, clock = utc_now(), time.monotonic()
    packages, size = measure(ctx.root)
    perform(ctx)
    seconds = time.monotonic() - clock
    left = mounts.mounts_below(ctx.root)
    if left:
        raise AvsError(f"it left mounts behind: {', '.join(left)}")
    packages_after, size_after = measure(ctx.root)
    return StepResult(
        step.name,
        identity,
        seconds,
        packages,
        packages_after,
        size,
        size_after,
        started,
        str(step.procedure.path),
        str(log),
    )


def measure(root: Path) -> tuple[int, int]:
    """The number of packages in an image and its size in bytes."""
    if not root.is_dir():
        return 0, 0
    return generate.count_packages(root), manifest.tree_size(str(root))


def step_reports(paths: BuildPaths, recipe: Recipe) -> dict[str, list[str]]:
    """What steps have to say in the report: step -> lines."""
    said = {step.name: paths.report(step.name) for step in recipe.steps}
    return {name: path.read_text(encoding="utf-8").splitlines() for name, path in said.items() if path.is_file()}


@contextmanager
def failing(what: str, log: Path, results: Sequence[StepResult] = ()) -> Iterator[None]:
    """Make a StepFailed of what goes wrong in a step. results: of those before it."""
    try:
        yield
    except (AvsError, OSError, subprocess.SubprocessError) as err:
        raise _failed(what, err, log, results) from None
    except Exception as err:
        frame = traceback.extract_tb(err.__traceback__)[-1]
        text = f"{type(err).__name__}: {err} ({frame.filename}, line {frame.lineno})"
        failed = _failed(what, AvsError(text), log, results)
        with open(log, "a", encoding="utf-8") as stream:
            traceback.print_exc(file=stream)
        raise failed from err


def _failed(what: str, err: Exception, log: Path, results: Sequence[StepResult]) -> StepFailed:
    text = err.text if isinstance(err, AvsError) else str(err)
    lines = err.tail if isinstance(err, CommandError) and err.tail else command.tail(log)
    failed = StepFailed(f"{what} failed: {text}", lines, str(log))
    failed.results = tuple(results)
    return failed


def write_marker(marker: Path, result: Any) -> None:
    """Write the result of a step, which says that it is done, whole or not at all."""
    temporary = marker.with_suffix(".new")
    temporary.write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    os.replace(temporary, marker)


def _load_result(marker: Path) -> Optional[StepResult]:
    try:
        return records.load(StepResult, marker.read_bytes())
    except OSError:
        return None  # no such step yet, or it was cut off: do it again


def write_build_info(paths: BuildPaths, image: OsImage, recipe: Recipe, results: Sequence[StepResult], addons: Sequence[Any],
                     report: str, provenance: Mapping[str, Any]) -> str:  # fmt: skip
    """Write build_info/ into the tree: the report, the results, the logs, the packages, and under inputs/ all it came from.

    addons: the results of the add-ons, AddonResults. Returns what is wrong with the image's package database, or "".
    """
    info = paths.tree / "build_info"
    mounts.remove_tree(info)
    inputs = info / "inputs"
    (info / "logs").mkdir(parents=True)
    (inputs / "procedures").mkdir(parents=True)
    (info / "report").write_text(report, encoding="utf-8")
    for name, rows in (("steps.json", results), ("addons.json", addons)):
        if rows or name == "steps.json":
            text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n"
            (info / name).write_text(text, encoding="utf-8")
    installed, problem = packages.examine(paths.root)
    (paths.tree / packages.STORED).write_text(packages.dump(installed), encoding="utf-8")
    facts = {**provenance, "packages": len(installed), "bytes": manifest.tree_size(str(paths.root))}
    (info / "provenance.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for result in (*results, *addons):
        if os.path.exists(result.log):
            shutil.copyfile(result.log, info / "logs" / os.path.basename(result.log))
    (inputs / "recipe.conf").write_text(recipe.text(), encoding="utf-8")
    (inputs / "osimage.stanza").write_text(image.stanza(), encoding="utf-8")
    places = [("procedures", step) for step in recipe.steps] + [("addons", step) for step in recipe.addons]
    for place, step in places:
        layer: Optional[Procedure] = step.procedure
        while layer is not None:
            target = inputs / place / layer.layer.replace(" ", ".") / layer.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(layer.source)
            layer = layer.overridden
    for path in sorted({*image.named_files(), *generate.lists(image)[0]}):
        target = inputs / "files" / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return problem
