"""Mode steps: each step and add-on with its layer, its file, and the recipe that names it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from xcat_avs.build import building, markers
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import StepResult
from xcat_avs.errors import UsageError
from xcat_avs.modes import steps
from xcat_avs.recipes import recipe
from xcat_avs.report import Report, to_text
from xcat_avs.request import Request
from xcat_avs.settings import share_dir
from xcat_avs.site import Site
from xcat_avs.system.progress import Progress

EXCLUDE = recipe.ADDON_OPTIONS["exclude"].default


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with an image that has a base and an add-on."""
    files = {
        "images.stanza": "rocky9.4-x86_64-netboot-compute:\n    objtype=osimage\n",
        "avs.conf": f"[xcat]\nuse = no\ndefinitions = {tmp_path}/images.stanza\n[paths]\nstate = {tmp_path}/state\n"
        f"store = file://{tmp_path}/repo\ninstalldir = {tmp_path}\n",
        "custom/avs/recipes/site.conf": "[recipe]\nsteps = generate_image, cleanup\n",
        "custom/avs/images/compute/recipe.conf": "[recipe]\nbase = site\nsteps_add = mine after generate_image\naddons = tools\n"
        "[addon tools]\nrelease = 2\n",
        "custom/avs/images/compute/mine.py": '"""Mine"""\ndef run(ctx): pass\n',
        "custom/avs/addons/el9/tools.py": '"""Tools"""\nOPTIONS = {"release": ("1", "which")}\ndef run(ctx): pass\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("AVS_CONF", str(tmp_path / "avs.conf"))
    return tmp_path


def test_steps_and_addons_with_what_names_them(top: Path) -> None:
    request = Request(image="compute")
    report = steps.run(request, Site.open(request, Progress(io.StringIO())))
    site = top / "custom/avs"
    recipes = [
        str(share_dir() / "recipes/default.conf"),
        f"{site}/recipes/site.conf",
        f"{site}/images/compute/recipe.conf",
    ]
    assert report.document["recipes"] == recipes
    assert [(step["name"], step["recipe"]) for step in report.document["steps"]] == [
        ("generate_image", recipes[1]), ("mine", recipes[2]), ("cleanup", recipes[1]),
    ]  # fmt: skip
    assert report.document["addons"] == [
        {"name": "tools", "layer": "site el9", "file": f"{site}/addons/el9/tools.py", "doc": "Tools", "options": {"exclude": EXCLUDE, "release": "2"},
         "overrides": "", "recipe": recipes[2]},
    ]  # fmt: skip
    text = to_text(report)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "mine image compute 3 Mine" in lines
    assert "ADD-ON LAYER RECIPE DESCRIPTION" in lines
    assert "tools site el9 3 Tools" in lines
    assert "tools release 2 which" in lines
    assert lines[-4:] == [
        "Recipes, the last one wins:",
        "1 shipped default.conf",
        "2 site site.conf",
        "3 image compute/recipe.conf",
    ]
    assert max(map(len, text.splitlines())) <= 100
    assert "var/log/alternatives.log," in text, "a long value is folded, and whole"
    with_paths = to_text(answer(replace(request, verbose=True)))
    lines = [" ".join(line.split()) for line in with_paths.splitlines()]
    assert f"mine image compute 3 Mine {site}/images/compute/mine.py" in lines
    assert f"tools site el9 3 Tools {site}/addons/el9/tools.py" in lines
    assert f"2 {recipes[1]}" in lines


def answer(request: Request) -> Report:
    return steps.run(request, Site.open(request, Progress(io.StringIO())))


def test_the_plan_of_a_resume(top: Path) -> None:
    tree = top / "source"
    (tree / "rootimg").mkdir(parents=True)
    request = Request(image="compute", resume=True, source=str(tree))
    report = answer(request)
    new = {"action": "run", "reason": "it is not done yet"}
    kinds = [item for name in ("steps", "addons") for item in report.document[name]]
    assert [{key: item[key] for key in new} for item in kinds] == [new] * 4
    # The first step is done, as markers say; the second is not.
    site = Site.open(request, Progress(io.StringIO()))
    image = site.image(request)
    job = BuildJob.of(image, site.recipe(image), site.definitions, request.source, site.progress)
    action = building.planned(job, resume=True).steps[0]
    job.paths.root.mkdir(parents=True)
    job.paths.results.mkdir()
    markers.begin(job.paths, "generate_image")
    markers.begin(job.paths, "mine")
    markers.write(action.marker, StepResult("generate_image", action.id, 1.0, 0, 0, 0, 0, "", "", ""))
    lines = [line.split(maxsplit=2) for line in to_text(answer(request)).splitlines() if line]
    assert lines == [
        ["STEP", "ACTION", "REASON"],
        ["generate_image", "skip", "it is done"],
        ["mine", "rerun", "it failed or was interrupted"],
        ["cleanup", "run", "it is not done yet"],
        ["ADD-ON", "ACTION", "REASON"],
        ["tools", "run", "it is not done yet"],
    ]
    assert answer(replace(request, base=True)).document["addons"] == []
    assert answer(replace(request, source="")).document["steps"][0]["action"] == "rerun", "it is another build"
    with pytest.raises(UsageError, match="give -b as well"):
        answer(replace(request, resume=False))
