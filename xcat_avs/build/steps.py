"""Builds: steps run one after the other on a tree, timed, measured, logged and resumable."""

from __future__ import annotations

import subprocess
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from xcat_avs.build.context import BuildContext, BuildPaths, perform
from xcat_avs.build.info import _lines
from xcat_avs.build.plan import BEGUN, StepResult, _load_result, step_ids, write_marker
from xcat_avs.clock import utc_now
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.system import command, mounts
from xcat_avs.system.progress import Progress
from xcat_avs.tree import packages, scan


class StepFailed(AvsError):
    """A step failed; results: the steps that were done before it."""

    results: tuple[StepResult, ...] = ()


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
    return packages.count_packages(root), scan.tree_size(str(root))


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
