"""Builds: steps run one after the other on a tree, timed, measured, logged and resumable."""

from __future__ import annotations

import subprocess
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

from xcat_avs.build import markers
from xcat_avs.build.context import BuildContext, perform
from xcat_avs.build.failure import ADDON, STEP
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import Result, StepResult
from xcat_avs.build.plan import SKIP, Action
from xcat_avs.clock import utc_now
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.system import command, masking, mounts
from xcat_avs.system.progress import Progress
from xcat_avs.tree import packages, scan


class StepFailed(AvsError):
    """A step, an add-on or a test failed. kind: which of them; reason: what it said, without which one it was."""

    kind = STEP
    name = ""
    reason = ""


class Running:
    """A step or add-on that is run now: since when, and where its output goes."""

    def __init__(self, action: Action[Any], log: Path) -> None:
        log.unlink(missing_ok=True)  # that of a failed build is kept by another name
        log.write_bytes(b"")
        self.step, self.log = action.step, log
        self._id, self._started, self._clock = action.id, utc_now(), time.monotonic()

    def measured(self) -> dict[str, Any]:
        """What every result has; seconds up to now."""
        return {"name": self.step.name, "id": self._id, "seconds": time.monotonic() - self._clock, "started": self._started,
                "source": str(self.step.procedure.path), "log": str(self.log)}  # fmt: skip


def carry_out(
    actions: Sequence[Action[Result]],
    work: Callable[[Action[Result], str], Result],
    progress: Progress,
    done: list[Result],
) -> None:
    """Do what is not to be skipped, each whole before the next; the results, of those that are skipped as well, go to done.

    work: is told which one it is as well, `3 of 7`.
    """
    for number, action in enumerate(actions, 1):
        result = action.done
        if action.kind != SKIP or result is None:
            result = work(action, f"{number} of {len(actions)}")
            markers.write(action.marker, result)
        else:
            title, past = ("", "done") if isinstance(result, StepResult) else (f"{ADDON} ", "built")
            progress.say(f"{title}{action.step.name}: {past} before, not repeated")
        done.append(result)


def run_steps(job: BuildJob, actions: Sequence[Action[StepResult]], done: list[StepResult]) -> None:
    """Run the steps of a plan; their results go to done, one by one. Raises StepFailed."""

    def work(action: Action[StepResult], place: str) -> StepResult:
        name, log = action.step.name, job.paths.step_log(action.step.name)
        markers.begin(job.paths, name)
        with showing(job.progress, name, f"{STEP} {place}"), failing(STEP, name, log):
            before = (done[-1].packages_after, done[-1].bytes_after) if done else None
            return _run_step(job.context(action.step, log), Running(action, log), before)

    carry_out(actions, work, job.progress, done)


def _run_step(ctx: BuildContext, running: Running, before: Optional[tuple[int, int]]) -> StepResult:
    """before: packages and bytes after the step before it; what one that failed has left since is of this one."""
    ctx.paths.report(running.step.name).unlink(missing_ok=True)
    packages_before, bytes_before = before or measure(ctx.root)
    perform(ctx)
    measured = running.measured()
    left = mounts.mounts_below(ctx.root)
    if left:
        raise AvsError(f"it left mounts behind: {', '.join(left)}")
    packages_after, bytes_after = measure(ctx.root)
    return StepResult(
        **measured,
        packages_before=packages_before,
        packages_after=packages_after,
        bytes_before=bytes_before,
        bytes_after=bytes_after,
    )


def measure(root: Path) -> tuple[int, int]:
    """The number of packages in an image and its size in bytes."""
    if not root.is_dir():
        return 0, 0
    return packages.count_packages(root), scan.tree_size(str(root))


@contextmanager
def showing(progress: Progress, activity: str, place: str = "") -> Iterator[None]:
    """Show what is done for the length of a block."""
    progress.begin(activity, place)
    try:
        yield
    finally:
        progress.end()


@contextmanager
def failing(kind: str, name: str, log: Path) -> Iterator[None]:
    """Make a StepFailed of what goes wrong in a step, add-on or test."""
    try:
        yield
    except (AvsError, OSError, subprocess.SubprocessError) as err:
        raise _failed(kind, name, err, log) from None
    except Exception as err:
        frame = traceback.extract_tb(err.__traceback__)[-1]
        text = f"{type(err).__name__}: {err} ({frame.filename}, line {frame.lineno})"
        failed = _failed(kind, name, AvsError(text), log)
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(masking.text(traceback.format_exc()))
        raise failed from err


def _failed(kind: str, name: str, err: Exception, log: Path) -> StepFailed:
    text = err.text if isinstance(err, AvsError) else str(err)
    lines = err.tail if isinstance(err, CommandError) and err.tail else command.tail(log)
    failed = StepFailed(f"{kind} {name} failed: {text}", lines, str(log))
    failed.kind, failed.name, failed.reason = kind, name, text
    return failed
