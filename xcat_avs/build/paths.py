"""Where a build lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.settings import Settings

ROOT, ADDONS = "rootimg", "addons"  # of a version: the image's files, and the directory of its add-ons


@dataclass(frozen=True)
class BuildPaths:
    """Where a build lives. tree: laid out like a rootimgdir (rootimg/, kernel, ...)."""

    tree: Path
    results: Path
    logs: Path

    @classmethod
    def of(cls, image: OsImage, settings: Settings) -> BuildPaths:
        build = settings.state / "builds" / image.name
        return cls(build / "tree", build / "results", settings.logs / image.name)

    @property
    def root(self) -> Path:
        return self.tree / ROOT

    @property
    def addons(self) -> Path:
        return self.tree / ADDONS

    def step_log(self, step: str) -> Path:
        """What a step said."""
        return self.logs / f"{step}.log"

    @property
    def testing(self) -> Path:
        """The file with the test that runs, or has failed."""
        return self.results / "testing"

    def addon_log(self, addon: str) -> Path:
        """What an add-on said while it was built."""
        return self.logs / f"addon-{addon}.log"

    def report(self, step: str) -> Path:
        """The file with what a step has to say in the report of the create."""
        return self.results / f"{step}.report"

    def step_marker(self, number: int, step: str) -> Path:
        """The file that says that a step is done."""
        return self.results / f"{number:02d}-{step}.json"

    def addon_marker(self, addon: str) -> Path:
        """The file that says that an add-on is built."""
        return self.results / f"{ADDONS}-{addon}.json"
