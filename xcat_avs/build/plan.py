"""What a build will run, and why: what is done already is known by its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Optional

from xcat_avs import generate
from xcat_avs.build import markers
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import AddonResult, Result, StepResult
from xcat_avs.build.paths import ROOT
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Step
from xcat_avs.system import mounts

RUN, SKIP, RERUN = "run", "skip", "rerun"
# Why something is not skipped, or is.
DONE, NEW, BROKEN, GONE = "it is done", "it is not done yet", "it failed or was interrupted", "its tree is gone"
CHANGED = "its file or its options have changed"
STARTS_OTHERWISE = "the definition, a file that it names, a site file, the generator, or this step itself has changed"


@dataclass(frozen=True)
class Action(Generic[Result]):
    """What is done with a step or add-on, and why. id: see step_id; result: the class of what it gives; done: what one that is skipped gave."""

    step: Step
    id: str
    marker: Path
    result: type[Result]
    kind: str = RUN
    reason: str = NEW
    done: Optional[Result] = None


@dataclass(frozen=True)
class Plan:
    """The steps and add-ons of a build in their order. anew: why nothing of the last build is kept, though asked for."""

    steps: Sequence[Action[StepResult]]
    addons: Sequence[Action[AddonResult]]
    anew: str = ""


def plan(job: BuildJob, seed: str, resume: bool) -> Plan:
    """What a build that starts from seed runs; with resume, only from the first step that is not done as it would be now."""
    steps = planned_steps(job, seed)
    addons = planned_addons(job, steps[-1].id)
    if not resume:
        return Plan(steps, addons)
    gone = next((name for name in markers.begun(job.paths) if name not in {step.name for step in job.recipe.steps}), "")
    steps = _compare_steps(job, steps, f"{gone} is no step any more" if gone else "")
    first = next((action.step.name for action in steps if action.kind != SKIP), "")
    addons = _compare_addons(job, addons, f"{first} is run before it" if first else "")
    anew = f"{gone}: was a step of this build and is none now" if gone else ""
    if not anew and steps and steps[0].kind == RERUN and steps[0].reason == STARTS_OTHERWISE:
        anew = f"{first}: {STARTS_OTHERWISE}"
    return Plan(steps, addons, anew)


def planned_steps(job: BuildJob, seed: str) -> list[Action[StepResult]]:
    """All steps, each with an id that is made of the one before it. seed: what the build starts from."""
    actions = []
    for number, step in enumerate(job.recipe.steps):
        seed = step_id(step, seed)
        actions.append(Action(step, seed, job.paths.step_marker(number, step.name), StepResult))
    return actions


def planned_addons(job: BuildJob, base: str) -> list[Action[AddonResult]]:
    """All add-ons. base: the id of the last step, which made the image that they are built on."""
    paths = job.paths
    return [Action(step, step_id(step, base), paths.addon_marker(step.name), AddonResult) for step in job.recipe.addons]


def _compare_steps(job: BuildJob, planned: Sequence[Action[StepResult]], because: str) -> list[Action[StepResult]]:
    """The steps with what is known of the last build. because: why none is skipped, "" where those that are done are."""
    actions: list[Action[StepResult]] = []
    begun, there = markers.begun(job.paths), job.paths.root.is_dir()
    for action in planned:
        changed = CHANGED if actions else STARTS_OTHERWISE
        action = _decided(action, there, action.step.name in begun, because or changed, keep=not because)
        if action.kind != SKIP and not because:
            because = f"{action.step.name} is run before it"
        actions.append(action)
    return actions


def _compare_addons(job: BuildJob, planned: Sequence[Action[AddonResult]], because: str) -> list[Action[AddonResult]]:
    """As _compare_steps."""
    top = job.paths.addons
    return [
        _decided(
            action,
            not top.is_symlink() and (top / action.step.name / ROOT).is_dir(),
            (top / action.step.name).is_dir(),
            because or CHANGED,
            keep=not because,
        )
        for action in planned
    ]


def _decided(action: Action[Result], there: bool, begun: bool, changed: str, keep: bool) -> Action[Result]:
    """The action after a look at its marker. there: its files are; changed: what to say of one that was done otherwise."""
    done = markers.load(action.result, action.marker)
    if keep and there and done is not None and done.id == action.id:
        return replace(action, kind=SKIP, reason=DONE, done=done)
    if done is None and not begun:
        return action
    broken = BROKEN if done is None else GONE if done.id == action.id else changed
    return replace(action, kind=RERUN, reason=broken if keep else changed)


def clear(job: BuildJob, planned: Plan) -> None:
    """Keep of the last build what is skipped, and nothing else; make the directories."""
    paths = job.paths
    if not any(action.kind == SKIP for action in planned.steps):
        for old in (paths.results, paths.tree):
            mounts.remove_tree(old)
    for directory in (paths.results, paths.logs, paths.tree.parent):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = {action.marker for action in planned.steps if action.kind == SKIP}
    kept |= {action.marker for action in planned.addons if action.kind == SKIP}
    for marker in paths.results.glob("*.json"):
        if marker not in kept:
            marker.unlink()


def step_id(step: Step, previous: str) -> str:
    """A hash of a step's sources, its options, and the id of what it works on."""
    sha = hashlib.sha256(previous.encode())
    layer: Optional[Procedure] = step.procedure
    while layer is not None:
        sha.update(layer.source + b"\0")
        layer = layer.overridden
    sha.update(json.dumps(dict(step.options), sort_keys=True, default=str).encode())
    return sha.hexdigest()


def build_seed(job: BuildJob, image: OsImage) -> str:
    """A hash of what a build starts from: the definition, every file it names, the site's files, the generator."""
    sha = hashlib.sha256(
        f"{image.stanza()}\0{job.generator.identity()}\0{job.source or ''}\0".encode("utf-8", "surrogateescape")
    )
    site = job.installdir / "custom/avs"
    site_files = [
        path
        for top in (site / "files", site / "images" / image.profile / "files")
        for path in top.rglob("*")
        if path.is_file()
    ]
    for path in sorted({*image.named_files(), *generate.lists(image)[0], *site_files}):
        sha.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
