"""Mode steps: each step and add-on with its layer, its file, and the recipe that names it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from xcat_avs.modes import steps
from xcat_avs.recipes import recipe
from xcat_avs.report import to_text
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
    lines = [" ".join(line.split()) for line in to_text(report).splitlines()]
    assert f"mine image compute 3 {site}/images/compute/mine.py Mine" in lines
    assert "ADD-ON LAYER RECIPE FILE DESCRIPTION" in lines
    assert f"tools site el9 3 {site}/addons/el9/tools.py Tools" in lines
    assert "tools release 2 which" in lines
    assert f"2 {recipes[1]}" in lines
