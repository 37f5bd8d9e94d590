"""What a build is asked to do: of which image, by which recipe and generator, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.build.context import BuildContext
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.generate import Generator, selection
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner


@dataclass(frozen=True)
class BuildJob:
    """source: the directory of --from, or None. message: why it is built, "" where nobody has said it."""

    image: OsImage
    recipe: Recipe
    generator: Generator
    source: Optional[Path]
    paths: BuildPaths
    installdir: Path
    progress: Progress
    message: str = ""

    @classmethod
    def of(cls, image: OsImage, recipe: Recipe, definitions: Definitions, source: str, progress: Progress) -> BuildJob:
        """source: the directory of --from, or "". Raises AvsError where nothing can build the image."""
        settings = recipe.settings
        tree = selection.existing_tree(source, settings.state / "builds")
        return cls(
            image=image, recipe=recipe, generator=selection.select(image, settings, definitions, tree), source=tree,
            paths=BuildPaths.of(image, settings), installdir=definitions.installdir, progress=progress,
        )  # fmt: skip

    def runner(self, log: Path) -> Runner:
        """How programs of the build are run that no step runs."""
        return Runner(log, self.recipe.settings.timeout, self.progress)

    def context(self, step: Step, log: Path, paths: Optional[BuildPaths] = None) -> BuildContext:
        """What the procedure of a step is given. paths: where that of an add-on works."""
        return BuildContext(
            image=self.image, recipe=self.recipe, options=step.options, installdir=self.installdir, paths=paths or self.paths,
            log=log, generator=self.generator, source=self.source, progress=self.progress, procedure=step.procedure,
        )  # fmt: skip
