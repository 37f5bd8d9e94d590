"""A build's plan: what is run, skipped and run again, why, and that the build does just that."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import pytest

from xcat_avs.build import building, markers
from xcat_avs.build.building import BuildFailed
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import AddonResult, StepResult
from xcat_avs.build.paths import BuildPaths
from xcat_avs.build.plan import SKIP
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Node
from xcat_avs.errors import AvsError
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.recipes.procedure import Layer, find
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.settings import Settings
from xcat_avs.system.progress import Progress

IMAGE = OsImage("debian12-x86_64-netboot-example.prod", {})
SOURCE = "def run(ctx):\n    ctx.root.mkdir(parents=True, exist_ok=True)\n    (ctx.root / {name!r}).write_text('x')\n"


@dataclass
class Defined:
    """Definitions that are read again at the end of a build; failure: what comes of that."""

    failure: Optional[Exception] = None
    image: OsImage = IMAGE
    installdir: Path = Path("/install")
    tftpdir: Path = Path("/tftpboot")
    xcat: bool = False

    def describe(self) -> str:
        return "a test"

    def osimages(self) -> Mapping[str, OsImage]:
        return {self.image.name: self.image}

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        if self.failure:
            raise self.failure

    def nodes(self) -> Mapping[str, Node]:
        return {}


@dataclass
class Builds:
    """Builds of one image, one after the other."""

    top: Path
    steps: tuple[str, ...] = ("one", "two", "three")
    addons: tuple[str, ...] = ()

    def put(self, name: str, text: str = "") -> None:
        self.top.mkdir(exist_ok=True)
        (self.top / f"{name}.py").write_text(text or SOURCE.format(name=name))

    @property
    def said(self) -> str:
        return self._said.getvalue()

    def job(self) -> BuildJob:
        layer = Layer("test", self.top, trusted=True)
        steps, addons = (
            tuple(Step(name, find(name, [layer]), {}) for name in names) for names in (self.steps, self.addons)
        )
        paths = BuildPaths(self.top / "build/tree", self.top / "build/results", self.top / "logs")
        self._said = io.StringIO()
        return BuildJob(
            image=IMAGE, recipe=Recipe(steps, Settings(), (), addons), generator=Mmdebstrap(), source=None, paths=paths,
            installdir=self.top / "install", progress=Progress(self._said),
        )  # fmt: skip

    def build(self, resume: bool = False, definitions: Optional[Defined] = None) -> list[str]:
        """The steps that were run; the result is checked against the plan."""
        job = self.job()
        plan = building.planned(job, resume)
        built = building.build(job, definitions or Defined(), resume)
        assert [step.id for step in built.steps] == [action.id for action in plan.steps]
        skipped = [action.step.name for action in plan.steps if action.kind == SKIP]
        assert self.said.count("done before, not repeated") == len(skipped)
        return [action.step.name for action in plan.steps if action.kind != SKIP]

    def plan(self) -> list[tuple[str, str, str]]:
        found = building.planned(self.job(), resume=True)
        return [(action.step.name, action.kind, action.reason) for action in found.steps]

    def addon_plan(self) -> list[tuple[str, str, str]]:
        found = building.planned(self.job(), resume=True)
        return [(action.step.name, action.kind, action.reason) for action in found.addons]


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    found = Builds(tmp_path / "site")
    for name in found.steps:
        found.put(name)
    return found


def test_nothing_is_done_yet(builds: Builds) -> None:
    new = "it is not done yet"
    assert builds.plan() == [("one", "run", new), ("two", "run", new), ("three", "run", new)]
    assert not (builds.top / "build").exists(), "a plan changes nothing"
    assert builds.build(resume=True) == ["one", "two", "three"]


def test_all_is_done(builds: Builds) -> None:
    builds.build()
    assert {(kind, reason) for _, kind, reason in builds.plan()} == {("skip", "it is done")}
    assert builds.build(resume=True) == []
    assert builds.build() == ["one", "two", "three"], "without -b all is built anew"


def test_a_step_that_was_edited(builds: Builds) -> None:
    builds.build()
    builds.put("two", SOURCE.format(name="other"))
    assert builds.plan() == [
        ("one", "skip", "it is done"),
        ("two", "rerun", "its file or its options have changed"),
        ("three", "rerun", "two is run before it"),
    ]
    assert builds.build(resume=True) == ["two", "three"]


def test_a_site_file_that_was_edited(builds: Builds) -> None:
    builds.build()
    (builds.top / "install/custom/avs/files").mkdir(parents=True)
    (builds.top / "install/custom/avs/files/hosts").write_text("x")
    name, kind, reason = builds.plan()[0]
    assert (name, kind) == ("one", "rerun")
    assert "a site file" in reason
    assert builds.build(resume=True) == ["one", "two", "three"]


def test_a_step_that_failed(builds: Builds) -> None:
    builds.put("two", "def run(ctx):\n    ctx.fail('no disk')\n")
    with pytest.raises(BuildFailed, match=r"example\.prod: step two failed: no disk") as caught:
        builds.build()
    assert [step.name for step in caught.value.built.steps] == ["one"]
    assert caught.value.failure == {"kind": "step", "step": "two", "error": "no disk"}
    assert builds.plan() == [
        ("one", "skip", "it is done"),
        ("two", "rerun", "it failed or was interrupted"),
        ("three", "run", "it is not done yet"),
    ]


def test_a_step_that_is_none_any_more(builds: Builds) -> None:
    builds.build()
    builds.steps = ("one", "three")
    assert builds.plan() == [("one", "rerun", "two is no step any more"), ("three", "rerun", "two is no step any more")]
    assert builds.build(resume=True) == ["one", "three"]
    assert "two: was a step of this build and is none now; beginning again" in builds.said


def test_a_step_that_was_put_in(builds: Builds) -> None:
    builds.steps = ("one", "three")
    builds.build()
    builds.steps = ("one", "two", "three")
    assert [item[:2] for item in builds.plan()] == [("one", "skip"), ("two", "run"), ("three", "rerun")]
    assert builds.build(resume=True) == ["two", "three"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"name": "two"}'])
def test_a_marker_that_was_interrupted(builds: Builds, data: bytes) -> None:
    builds.build()
    (builds.top / "build/results/01-two.json").write_bytes(data)
    assert builds.plan()[1] == ("two", "rerun", "it failed or was interrupted")


def test_a_tree_that_is_gone(builds: Builds) -> None:
    builds.build()
    (builds.top / "build/tree").rename(builds.top / "build/moved")
    assert builds.plan()[0] == ("one", "rerun", "its tree is gone")


def test_addons(builds: Builds) -> None:
    builds.addons = ("small",)
    builds.put("small", "def run(ctx): pass\n")
    job = builds.job()
    assert builds.addon_plan() == [("small", "run", "it is not done yet")]
    stand_in = replace(job, recipe=replace(job.recipe, addons=()))
    built = building.build(stand_in, Defined(), resume=False)
    action = building.planned(job, resume=True).addons[0]
    result = AddonResult("small", action.id, 1.0, 0, 0, 0, 0, 0, "", "", "")
    (job.paths.addons / "small/rootimg").mkdir(parents=True)
    assert builds.addon_plan() == [("small", "rerun", "it failed or was interrupted")]
    markers.write(action.marker, result)
    assert builds.addon_plan() == [("small", "skip", "it is done")]
    assert [step.name for step in built.steps] == ["one", "two", "three"]
    builds.put("small", "def run(ctx): return\n")
    assert builds.addon_plan() == [("small", "rerun", "its file or its options have changed")]
    builds.put("small", "def run(ctx): pass\n")
    builds.put("three", SOURCE.format(name="other"))
    assert builds.addon_plan() == [("small", "rerun", "three is run before it")]


@pytest.mark.parametrize(
    "failure", [AvsError("xcatd is gone"), OSError("no"), UnicodeDecodeError("utf-8", b"x", 0, 1, "spoiled"), KeyError("x")]
)  # fmt: skip
def test_the_first_error_is_told(builds: Builds, failure: Exception) -> None:
    """Where the definition cannot be read again after a step has failed, the user hears of the step."""
    builds.put("two", "def run(ctx):\n    ctx.fail('no disk')\n")
    with pytest.raises(BuildFailed, match="step two failed: no disk") as caught:
        builds.build(definitions=Defined(failure))
    assert caught.value.log == str(builds.top / "logs/two.log")


def test_a_definition_that_cannot_be_read_again_after_a_build(builds: Builds) -> None:
    assert builds.build(definitions=Defined(AvsError("xcatd is gone"))) == ["one", "two", "three"]
    assert "what was read at the start counts: xcatd is gone" in builds.said


def test_what_the_build_changed_itself_is_no_reason_to_begin_again(builds: Builds) -> None:
    after = OsImage(IMAGE.name, {"kernelver": "6.1"})
    builds.build(definitions=Defined(image=after))
    job = replace(builds.job(), image=after)
    assert {action.kind for action in building.planned(job, resume=True).steps} == {"skip"}


def test_results_are_records(builds: Builds) -> None:
    builds.build()
    found = json.loads((builds.top / "build/results/00-one.json").read_text())
    assert list(found) == list(StepResult.__dataclass_fields__)
