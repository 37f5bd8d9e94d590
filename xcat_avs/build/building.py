"""A build: its plan, the steps, the add-ons, and the definition as they leave it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from xcat_avs.build import addons, logs, markers, plan, steps, trial, writeback
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import AddonResult, StepResult
from xcat_avs.build.plan import Plan
from xcat_avs.build.steps import StepFailed
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.errors import AvsError, Interrupted


@dataclass(frozen=True)
class Built:
    """What was done, in order; image: its definition now. Of a build that failed, what was done before."""

    image: OsImage
    steps: Sequence[StepResult] = ()
    addons: Sequence[AddonResult] = ()

    def document(self) -> dict[str, Any]:
        return {"steps": [asdict(item) for item in self.steps], "addons": [asdict(item) for item in self.addons]}


class BuildFailed(AvsError):
    """A step, add-on or test failed. built: what was done before it; failure: which one, and what it said."""

    def __init__(self, built: Built, err: StepFailed) -> None:
        super().__init__(f"{built.image.name}: {err.text}", err.tail, err.log)
        self.built = built
        self.failure: Mapping[str, str] = {"kind": err.kind, "step": err.name, "error": err.reason}


def planned(job: BuildJob, resume: bool) -> Plan:
    """What build() would do."""
    return plan.plan(job, _seed(job, resume), resume)


def _seed(job: BuildJob, resume: bool) -> str:
    seed = plan.build_seed(job, job.image)
    return markers.earlier_seed(job.paths, seed) if resume else seed


def build(job: BuildJob, definitions: Definitions, resume: bool) -> Built:
    """Run the steps and add-ons, then the tests of the recipe; with resume, what is not done as it would be now. Raises BuildFailed."""
    seed = _seed(job, resume)
    todo = plan.plan(job, seed, resume)
    if todo.anew:
        begun = markers.noted_again(job.paths)
        job.progress.say(f"{todo.anew}; beginning again" + (f"; that build is resumed by `{begun}`" if begun else ""))
    logs.keep(job.paths, anew=all(action.kind != plan.SKIP for action in todo.steps))
    plan.clear(job, todo)
    markers.note_message(job.paths, job.message)
    done: tuple[list[StepResult], list[AddonResult]] = ([], [])

    def remember(interrupted: bool) -> OsImage:
        # What the build itself changed in the definition is no reason to begin again.
        after = writeback.written_back(job.image, definitions, job.progress, interrupted)
        with contextlib.suppress(AvsError, OSError):  # a file that it names is gone: the next run says so
            markers.remember_seed(job.paths, seed, plan.build_seed(job, after))
        return after

    try:
        steps.run_steps(job, todo.steps, done[0])
        addons.run_addons(job, todo.addons, done[1])
        trial.run_tests(job)
    except BaseException as err:
        # The first error is the one to be told, whatever comes while this is noted.
        with contextlib.suppress(Exception, Interrupted):
            remember(isinstance(err, Interrupted))
        if isinstance(err, StepFailed):
            raise BuildFailed(Built(job.image, *done), err) from None
        raise
    return replace(Built(job.image, *done), image=remember(interrupted=False))
