"""A shell in the tree of a build that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.build import failure, trial
from xcat_avs.build.addons import VIEW
from xcat_avs.build.context import variables
from xcat_avs.build.failure import ADDON, TEST, Failure
from xcat_avs.build.paths import ROOT, BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.system import command, mounts
from xcat_avs.system.chroot import chroot_mounts
from xcat_avs.system.progress import Progress


@dataclass(frozen=True)
class Scene:
    """Where a build failed. step: what failed, as the recipe has it; None for a test."""

    image: OsImage
    failure: Failure
    step: Optional[Step]
    paths: BuildPaths
    installdir: Path

    @classmethod
    def of(cls, image: OsImage, recipe: Recipe, installdir: Path) -> Scene:
        """Raises AvsError where no build failed, or what failed is not in the recipe any more."""
        paths = BuildPaths.of(image, recipe.settings)
        failed = failure.last(paths)
        if failed is None:
            raise AvsError(
                f"{image.name}: no step of its last build here failed, so there is no place for a shell; "
                f"`avsimage -c checkout {image.name} DIR` writes out what is stored, to be looked into"
            )
        if failed.kind == TEST:
            return cls(image, failed, None, paths, installdir=installdir)
        steps = recipe.addons if failed.kind == ADDON else recipe.steps
        found = [step for step in steps if step.name == failed.name]
        if not found:
            again = f"avsimage -c create {image.name} -b"
            raise AvsError(f"{image.name}: {failed} failed, and is not in the recipe any more; `{again}` begins again")
        return cls(image, failed, found[0], paths, installdir=installdir)

    def enter(self, progress: Progress, apart: bool) -> int:
        """Run a shell with the environment of what failed; returns its exit code.

        In the image where that has a shell, else on this machine, in the directory of the image. apart: see command.attached.
        """
        with self._view() as root:
            found = self._variables(root)
            shell = trial.shell(root)
            where = "in the image" if shell else f"of this machine, in {root}: the image has no {trial.SHELL}"
            progress.say(f"{self.image.name}: {self.failure} failed; a shell {where}. Its log: {self.failure.log}")
            if not shell:
                return command.attached([trial.SHELL], found, root, apart)
            found.update(AVS_ROOT="/", HOME="/root", SHELL=shell)
            with chroot_mounts(root):
                return command.attached(["chroot", str(root), shell], found, root, apart)

    def _variables(self, root: Path) -> dict[str, str]:
        if self.step is None:
            return {}
        return variables(self.image, root, self.installdir, self.step.options, self.step.procedure)

    @contextmanager
    def _view(self) -> Iterator[Path]:
        """The root, as the procedure saw it. That of an add-on is a view of the image, which a resume makes anew."""
        if self.failure.kind == TEST:
            with mounts.overlay_again(self.paths.root, trial.work(self.paths), trial.VIEW) as view:
                yield view
            return
        if self.failure.kind != ADDON:
            if not self.paths.root.is_dir():
                raise AvsError(f"{self.image.name}: {self.failure} failed before there was any file of the image")
            yield self.paths.root
            return
        work = self.paths.tree.with_name("addon")
        with mounts.overlay_again(self.paths.root, work, VIEW):
            yield work / ROOT
