"""The step, add-on or test at which the last build ended, by what it has left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.build import markers
from xcat_avs.build.paths import BuildPaths

STEP, ADDON, TEST = "step", "add-on", "test"


@dataclass(frozen=True)
class Failure:
    """kind: STEP, ADDON or TEST. name: of a test its command. log: what it said."""

    kind: str
    name: str
    log: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def last(paths: BuildPaths) -> Optional[Failure]:
    """What of the last build was begun and is not done: it failed, or was interrupted. None where nothing is."""
    begun = markers.begun(paths)
    done = {
        match.group(1) for path in paths.results.glob("*.json") if (match := re.fullmatch(r"\d+-(.*)\.json", path.name))
    }
    if begun and begun[-1] not in done:
        return Failure(STEP, begun[-1], paths.step_log(begun[-1]))
    top = paths.addons
    for directory in sorted(top.iterdir()) if top.is_dir() and not top.is_symlink() else ():
        if begun and not paths.addon_marker(directory.name).is_file():
            return Failure(ADDON, directory.name, paths.addon_log(directory.name))
    test = markers.testing(paths)
    return Failure(TEST, test, paths.step_log(TEST)) if test else None
