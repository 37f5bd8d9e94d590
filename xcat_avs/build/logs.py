"""The logs of builds on this machine: of the last one, and of those before it that failed, until one succeeds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcat_avs.build import failure, markers
from xcat_avs.build.markers import AddonResult, StepResult
from xcat_avs.build.paths import BuildPaths
from xcat_avs.system import mounts

FAILED = "failed"  # below the logs of an image: a directory for each build that failed
SUFFIX = ".log"
OTHERS = ("pack", "boot")  # what other modes write beside the logs of the steps
DONE, RUNS, BROKE = "done", "running", "failed"


@dataclass(frozen=True)
class Log:
    """What a step, or an add-on (addon-NAME), said. build: the date of one that failed before, "" for the last one.

    state: done, running or failed. seconds: what a step took, 0 where it is not known. bytes: of the log.
    """

    step: str
    state: str
    path: Path
    seconds: float = 0
    build: str = ""

    def document(self) -> dict[str, Any]:
        size = self.path.stat().st_size
        return {"step": self.step, "state": self.state, "seconds": self.seconds, "build": self.build,
                "path": str(self.path), "bytes": size}  # fmt: skip


def keep(paths: BuildPaths, anew: bool) -> None:
    """Keep the logs of the last build where it failed, before the next one writes its own. anew: nothing of it is resumed."""
    old = _logs(paths.logs)
    if failure.last(paths) is not None and old:
        newest = max(path.stat().st_mtime for path in old)
        kept = paths.logs / FAILED / time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest))
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in old:
            (kept / path.name).unlink(missing_ok=True)
            os.link(path, kept / path.name)  # a step that is run again writes another file
    for path in old if anew else ():
        path.unlink()


def forget(paths: BuildPaths) -> None:
    """Remove the logs of builds that failed: one has succeeded."""
    mounts.remove_tree(paths.logs / FAILED)


def found(paths: BuildPaths, running: bool) -> list[Log]:
    """The logs that are there, those of the last build in the order of their making after those of earlier ones.

    running: whether a build runs now.
    """
    logs = [log for build in _builds(paths) for log in _of(build, _ended(build), {}, build.name)]
    failed = failure.last(paths)
    last = "" if failed is None else failed.log.stem
    states = {last: RUNS if running else BROKE}
    return [*logs, *_of(paths.logs, states, _seconds(paths), "")]


def _builds(paths: BuildPaths) -> list[Path]:
    top = paths.logs / FAILED
    return sorted(top.iterdir()) if top.is_dir() else []


def _logs(directory: Path) -> list[Path]:
    """The logs of steps in a directory, the oldest first."""
    files = [path for path in directory.glob(f"*{SUFFIX}") if path.stem not in OTHERS]
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _ended(directory: Path) -> dict[str, str]:
    """Of a build that failed: the last log is that of what did."""
    logs = _logs(directory)
    return {logs[-1].stem: BROKE} if logs else {}


def _of(directory: Path, states: dict[str, str], seconds: dict[str, float], build: str) -> Iterator[Log]:
    for path in _logs(directory):
        step = path.stem
        yield Log(step, states.get(step, DONE), path, seconds=seconds.get(step, 0), build=build)


def _seconds(paths: BuildPaths) -> dict[str, float]:
    """Log -> how long what wrote it took."""
    results: list[Any] = [markers.load(StepResult, path) for path in paths.results.glob("[0-9]*.json")]
    results += [markers.load(AddonResult, path) for path in paths.results.glob("addons-*.json")]
    return {Path(result.log).stem: result.seconds for result in results if result is not None}
