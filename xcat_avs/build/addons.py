"""Add-ons: named sets of files over the base image, each built by its procedure on an overlay of it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.build import plan
from xcat_avs.build.context import BuildContext, BuildPaths, perform
from xcat_avs.build.plan import StepResult, write_marker
from xcat_avs.build.steps import failing
from xcat_avs.clock import utc_now
from xcat_avs.errors import AvsError
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.system import command, mounts, records
from xcat_avs.system.progress import Progress
from xcat_avs.tree import delta, packages, scan
from xcat_avs.tree.packages import PackageList

DIRECTORY = "addons"  # of a version, and of a published set
ROOT, REMOVED, PACKAGES = "rootimg", "removed", "packages"  # of an add-on in a version
EXCLUDE = "exclude"  # the option that every add-on has
VIEW = "rootimg"  # where its procedure sees the image with it


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


ContextFor = Callable[[Step, Path, BuildPaths], BuildContext]


def run_addons(
    ctx_for: ContextFor,
    recipe: Recipe,
    paths: BuildPaths,
    steps: Sequence[StepResult],
    resume: bool,
    progress: Progress,
) -> list[AddonResult]:
    """Build the add-ons of a recipe into tree/addons; with resume, only those that are not there as they would be now.

    ctx_for(step, log, paths): the context of one. steps: what has made the base. Raises StepFailed with them.
    """
    names = {step.name for step in recipe.addons}
    top = paths.tree / DIRECTORY
    if top.is_symlink() or not top.is_dir():
        mounts.remove_tree(top)  # a link would lead to what is not of the image
    for old in sorted(top.iterdir()) if top.is_dir() else ():
        if not resume or old.name not in names:
            mounts.remove_tree(old)
    if not names:
        mounts.remove_tree(top)
    before: Optional[PackageList] = None
    results = []
    for step in recipe.addons:
        marker, identity = paths.results / f"{DIRECTORY}-{step.name}.json", plan.step_id(step, steps[-1].id)
        done = _load(marker) if resume else None
        if done is not None and done.id == identity and (top / step.name / ROOT).is_dir():
            progress.say(f"add-on {step.name}: built before, not repeated")
            results.append(done)
            continue
        marker.unlink(missing_ok=True)
        log = paths.logs / f"addon-{step.name}.log"
        progress.begin(f"add-on {step.name}")
        try:
            with failing(f"add-on {step.name}", log, steps):
                before = packages.examine(paths.root)[0] if before is None else before
                result = _build(ctx_for, step, identity, paths, log, before)
        finally:
            progress.end()
        write_marker(marker, result)
        results.append(result)
    return results


def _load(marker: Path) -> Optional[AddonResult]:
    try:
        return records.load(AddonResult, marker.read_bytes())
    except OSError:
        return None


def _build(
    ctx_for: ContextFor, step: Step, identity: str, paths: BuildPaths, log: Path, before: PackageList
) -> AddonResult:
    """Run the procedure on an overlay of the base, whose upper directory becomes the add-on."""
    started, clock = utc_now(), time.monotonic()
    log.write_bytes(b"")
    work, target = paths.tree.with_name("addon"), paths.tree / DIRECTORY / step.name
    mounts.remove_tree(target)
    target.mkdir(parents=True, mode=0o755)
    removed: list[str] = []

    def settle(upper: Path) -> None:
        removed.extend(delta.settle(str(upper), str(paths.root), step.options.get(EXCLUDE, ())))
        try:
            os.rename(upper, target / ROOT)
        except OSError:  # in memory
            command.run(["cp", "-a", "--", str(upper), str(target / ROOT)], log=log)

    with mounts.overlay(paths.root, work, VIEW, settle):
        ctx = ctx_for(step, log, dataclasses.replace(paths, tree=work))
        perform(ctx)
        left = [point for point in mounts.mounts_below(work) if point not in _own(work)]
        if left:
            raise AvsError(f"it left mounts behind: {', '.join(left)}")
        beside = sorted(set(os.listdir(work)) - {"upper", "work", VIEW})
        if beside:
            raise AvsError(f"it wrote {', '.join(beside)} beside the root; kernel and initrd are those of the steps")
        after = packages.examine(ctx.root)[0]
    mounts.remove_tree(work)
    changes = package_changes(before, after)
    (target / REMOVED).write_text(delta.dump(removed), encoding="ascii")
    (target / PACKAGES).write_text(changes, encoding="utf-8")
    lines = changes.splitlines()
    return AddonResult(
        step.name, identity, time.monotonic() - clock,
        sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines),
        scan.tree_size(str(target / ROOT)), delta.tree_paths(target / ROOT), len(removed),
        started, str(step.procedure.path), str(log),
    )  # fmt: skip


def _own(work: Path) -> tuple[str, str]:
    """What of ours is mounted in the work directory."""
    real = os.path.realpath(work)
    return real, os.path.join(real, VIEW)


def package_changes(before: PackageList, after: PackageList) -> str:
    """The packages that an add-on adds (`+`) and takes away (`-`), a line each: as in a list of packages, after the sign."""
    old, new = set(before), set(after)
    changed = [("-", item) for item in old - new] + [("+", item) for item in new - old]
    lines = [
        "\t".join((sign, item.name, str(item.epoch), *item[2:]))
        for sign, item in sorted(changed, key=lambda change: (change[1].name, change[0] == "+", change[1]))
    ]
    return "\n".join([packages.HEADER + after.kind, *lines]) + "\n"
