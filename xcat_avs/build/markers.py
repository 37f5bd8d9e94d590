"""What is known of a build that was begun: the results of its steps and add-ons, and what it started from."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TypeVar, Union

from xcat_avs.build.paths import BuildPaths
from xcat_avs.system import records
from xcat_avs.system.files import naming, write_atomic

SEED, BEGUN, AGAIN, MESSAGE = "seed", "begun", "again", "message"


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


@dataclass(frozen=True)
class AddonResult:
    """What an add-on is. seconds: to build it; bytes and paths: of what it holds; removed: how many paths it takes away."""

    name: str
    id: str
    seconds: float
    packages_added: int
    packages_removed: int
    bytes: int
    paths: int
    removed: int
    started: str
    source: str
    log: str


Result = TypeVar("Result", StepResult, AddonResult)


def write(marker: Path, result: Union[StepResult, AddonResult]) -> None:
    """Write the result of a step or add-on, which says that it is done, whole or not at all."""
    write_atomic(marker, json.dumps(dataclasses.asdict(result)))


def load(kind: type[Result], marker: Path) -> Optional[Result]:
    """The result in a marker; None where there is none, or it was interrupted while it was written."""
    data = _read(marker)
    return records.load(kind, data) if data else None


def begin(paths: BuildPaths, name: str) -> None:
    """Note that a step is begun."""
    with naming(paths.results / BEGUN), open(paths.results / BEGUN, "a", encoding="utf-8") as stream:
        stream.write(f"{name}\n")


def begun(paths: BuildPaths) -> list[str]:
    """The steps of the last build that were begun."""
    return _read(paths.results / BEGUN).decode("utf-8", "replace").split()


def note_again(paths: BuildPaths, command: str) -> None:
    """Note the command that resumes the build. Where that fails, the error of the build is the one to be told."""
    with suppress(OSError):
        write_atomic(paths.results / AGAIN, command.encode("utf-8", "surrogateescape"))


def noted_again(paths: BuildPaths) -> str:
    """That command as it was noted, or ""."""
    return _read(paths.results / AGAIN).decode("utf-8", "surrogateescape")


def again(paths: BuildPaths, image: str) -> str:
    """The command that resumes the last build of an image."""
    return noted_again(paths) or f"avsimage -c create {image} -b"


def note_message(paths: BuildPaths, message: str) -> None:
    """Keep why it is built for a resume that does not say it again."""
    write_atomic(paths.results / MESSAGE, message.encode("utf-8", "surrogateescape"))


def message(paths: BuildPaths) -> str:
    """Why the last build was begun, or "" where nobody has said it."""
    return _read(paths.results / MESSAGE).decode("utf-8", "surrogateescape")


def remember_seed(paths: BuildPaths, seed: str, after: str) -> None:
    """Note what the seed is now that the build has changed its own definition."""
    if after != seed and paths.results.is_dir():
        (paths.results / SEED).write_text(f"{after} {seed}\n", encoding="ascii")


def earlier_seed(paths: BuildPaths, seed: str) -> str:
    """The seed that a build began with, where seed is what the build itself made of it."""
    after, began = (*_read(paths.results / SEED).decode("ascii", "replace").split(), "", "")[:2]
    return began if after == seed else seed


def testing(paths: BuildPaths) -> str:
    """The test of the recipe that the last build ended at, "" for none."""
    return _read(paths.testing).decode("utf-8", "replace")


def _read(path: Path) -> bytes:
    """What a file of the last build holds; nothing where it cannot be read, but that is told to who may not."""
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError:
        return b""
