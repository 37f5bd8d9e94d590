"""Add-ons: named sets of files over the base image, each built by its procedure on an overlay of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.build.context import perform
from xcat_avs.build.failure import ADDON
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import AddonResult
from xcat_avs.build.paths import ROOT
from xcat_avs.build.plan import SKIP, Action
from xcat_avs.build.steps import Running, carry_out, failing, showing
from xcat_avs.errors import AvsError
from xcat_avs.system import mounts
from xcat_avs.system.runner import Runner
from xcat_avs.tree import delta, packages, scan
from xcat_avs.tree.packages import PackageList

REMOVED, PACKAGES = "removed", "packages"  # of an add-on in a version, beside its files
EXCLUDE = "exclude"  # the option that every add-on has
VIEW = "rootimg"  # where its procedure sees the image with it


def run_addons(job: BuildJob, actions: Sequence[Action[AddonResult]], done: list[AddonResult]) -> None:
    """Build the add-ons of a plan into tree/addons; their results go to done, one by one. Raises StepFailed."""
    top = job.paths.addons
    if top.is_symlink() or not top.is_dir() or not actions:
        mounts.remove_tree(top)  # a link would lead to what is not of the image
    kept = {action.step.name for action in actions if action.kind == SKIP}
    for old in sorted(top.iterdir()) if top.is_dir() else ():
        if old.name not in kept:
            mounts.remove_tree(old)
    before: list[PackageList] = []  # read when the first one is built

    def work(action: Action[AddonResult], place: str) -> AddonResult:
        name, log = action.step.name, job.paths.addon_log(action.step.name)
        with showing(job.progress, f"{ADDON} {name}", place), failing(ADDON, name, log):
            if not before:
                before.append(packages.examine(job.paths.root)[0])
            return _build(job, Running(action, log), before[0])

    carry_out(actions, work, job.progress, done)


def _build(job: BuildJob, running: Running, before: PackageList) -> AddonResult:
    """Run the procedure on an overlay of the base, whose upper directory becomes the add-on."""
    step, paths = running.step, job.paths
    work, target = paths.tree.with_name("addon"), paths.addons / step.name
    mounts.remove_tree(target)
    target.mkdir(parents=True, mode=0o755)
    removed: list[str] = []

    def settle(upper: Path) -> None:
        removed.extend(delta.settle(str(upper), str(paths.root), step.options.get(EXCLUDE, ())))
        try:
            os.rename(upper, target / ROOT)
        except OSError:  # in memory
            Runner(running.log, progress=job.progress).run(["cp", "-a", "--", str(upper), str(target / ROOT)])

    with mounts.overlay(paths.root, work, VIEW, settle):
        ctx = job.context(step, running.log, dataclasses.replace(paths, tree=work))
        perform(ctx)
        _refuse_leftovers(work)
        after = packages.examine(ctx.root)[0]
    mounts.remove_tree(work)
    changes = package_changes(before, after)
    (target / REMOVED).write_text(delta.dump(removed), encoding="ascii")
    (target / PACKAGES).write_text(changes, encoding="utf-8")
    lines = changes.splitlines()
    return AddonResult(
        **running.measured(), packages_added=sum(line.startswith("+") for line in lines),
        packages_removed=sum(line.startswith("-") for line in lines), bytes=scan.tree_size(str(target / ROOT)),
        paths=delta.tree_paths(target / ROOT), removed=len(removed),
    )  # fmt: skip


def _refuse_leftovers(work: Path) -> None:
    left = [point for point in mounts.mounts_below(work) if point not in _own(work)]
    if left:
        raise AvsError(f"it left mounts behind: {', '.join(left)}")
    beside = sorted(set(os.listdir(work)) - {"upper", "work", VIEW})
    if beside:
        raise AvsError(f"it wrote {', '.join(beside)} beside the root; kernel and initrd are those of the steps")


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
