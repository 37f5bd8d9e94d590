"""Looks at what builds have left on this machine: the last one of an image, its kernel, its size, and stale ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xcat_avs.build import failure, markers
from xcat_avs.build.markers import StepResult
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings
from xcat_avs.system.findings import FAIL, OK, WARN, Finding
from xcat_avs.tree import kernels


def recipe(found: Recipe) -> Iterator[Finding]:
    """The steps of an image."""
    names = [step.name for step in found.steps]
    yield Finding(OK if names else FAIL, f"recipe: {', '.join(names) or 'no step'}")
    if found.addons:
        yield Finding(OK, f"add-ons: {', '.join(step.name for step in found.addons)}")


def kernel(image: OsImage, tree: Path) -> Iterator[Finding]:
    """Kernel, initrd and modules of the last build."""
    if not tree.is_dir():
        yield Finding(OK, f"{image.name}: not built on this machine yet")
        return
    kernels.check_modules(tree)
    absent = [name for name in (kernels.KERNEL, kernels.INITRD) if not (tree / name).is_file()]
    if absent:
        yield Finding(WARN, f"the last build of {image.name} has no {' and no '.join(absent)}: nodes cannot boot it")
    else:
        release = kernels.read_release(tree / kernels.KERNEL) or "of a release that it does not tell"
        yield Finding(OK, f"the last build of {image.name} has kernel {release}, its modules, and an initrd")


def size(image: OsImage, settings: Settings) -> int:
    """The bytes of the last build, at its largest; 0 where it is not known."""
    results = [markers.load(StepResult, path) for path in BuildPaths.of(image, settings).results.glob("[0-9]*-*.json")]
    return max((result.bytes_after for result in results if result is not None), default=0)


def kept(
    images: Mapping[str, OsImage], settings: Settings, running: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Builds that failed, and those of osimages that are gone. images: all there are; none where that is not known.

    running: osimage -> `build` where one runs -> who does it.
    """
    builds = settings.state / "builds"
    for directory in sorted(builds.iterdir()) if images and builds.is_dir() else ():
        image = images.get(directory.name)
        if image is None:
            text = f"{directory} is a build of an osimage that is not defined any more"
            yield Finding(WARN, text, fix=f"rm -r {directory}")
            continue
        now = running.get(image.name, {}).get("build", "")
        if now:
            yield Finding(OK, f"{image.name} is being built by {now}")
            continue
        failed = failure.last(BuildPaths.of(image, settings))
        if failed is not None:
            text = f"the last build of {image.name} ended at {failed}; its log: {failed.log}"
            yield Finding(WARN, text, fix=markers.again(BuildPaths.of(image, settings), image.name))
