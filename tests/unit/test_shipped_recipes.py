"""The recipes that are shipped, each with a system of every family: they load, and fit what is shipped beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.osvers import FAMILIES
from xcat_avs.errors import AvsError
from xcat_avs.recipes import files, recipe
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings

TOP = Path(__file__).resolve().parents[2]
SYSTEMS = {
    "el": ("rocky9.4", "SL6.3"),
    "fedora": ("fedora41",),
    "sles": ("sles15.5",),
    "debian": ("debian12",),
    "ubuntu": ("ubuntu24.04.1",),
}
NAMES = sorted({path.name.split(".")[0] for path in (TOP / "share/xcat/avs/recipes").glob("*.conf")})
# Without any of these the recipes stand in a tree that has no procedures for them; with one of them all must be there.
PROCEDURES = {path.stem for path in (TOP / "xcat_avs/procedures").glob("*/*")}
LANDMARKS = {"setup_fstab", "setup_sshd", "remove_doc", "remove_man_pages"}
pytestmark = pytest.mark.skipif(not LANDMARKS & PROCEDURES, reason="no procedures for the shipped recipes")
# A pair of steps that is for one package format alone.
REPOSITORIES = {"rpm": "setup_yum_repos", "deb": "setup_apt_sources"}


def load(osvers: str, name: str, tmp_path: Path) -> Recipe:
    """What an image has whose own recipe only names its base, on a site without any files."""
    own = tmp_path / "custom/avs/images/p/recipe.conf"
    own.parent.mkdir(parents=True)
    if name != files.DEFAULT:
        own.write_text(f"[recipe]\nbase = {name}\n")
    return recipe.load(OsImage(f"{osvers}-x86_64-netboot-p", {}), tmp_path, Settings())


def test_there_are_recipes_and_a_system_of_every_family() -> None:
    assert {"default", "minimal", "example", "compute", "login"} <= set(NAMES)
    assert set(SYSTEMS) == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("osvers", [osvers for several in SYSTEMS.values() for osvers in several])
def test_shipped_recipe_loads(osvers: str, name: str, tmp_path: Path) -> None:
    found = load(osvers, name, tmp_path)
    steps = [step.name for step in found.steps]
    assert steps[:2] == ["prepare_image_directory", "generate_image"]
    assert steps[-1] == "cleanup"
    assert all(step.procedure.layer.startswith("shipped ") for step in found.steps)
    assert found.settings == Settings(), "a recipe that others begin with leaves the settings alone"
    if name != files.DEFAULT:
        packages = OsImage(f"{osvers}-x86_64-netboot-p", {}).version.packages
        assert [step for step in steps if step in REPOSITORIES.values()] == [REPOSITORIES[packages]]


@pytest.mark.parametrize("name", [name for name in NAMES if name != files.DEFAULT])
def test_unlabelled_root_has_no_selinux(name: str, tmp_path: Path) -> None:
    assert "setup_disable_selinux" in [step.name for step in load("rocky9.4", name, tmp_path).steps]


def test_a_login_node_has_what_people_read(tmp_path: Path) -> None:
    steps = {step.name for step in load("rocky9.4", "login", tmp_path).steps}
    assert not {name for name in steps if re.fullmatch("remove_(man_pages|doc|info)", name)}


def test_a_wrong_name_in_a_shipped_recipe_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share"
    (share / "recipes").mkdir(parents=True)
    (share / "recipes/default.conf").write_text("[recipe]\nsteps = prepare_image_directory, no_such_step\n")
    monkeypatch.setattr(files, "share_dir", lambda: share)
    with pytest.raises(AvsError, match="unknown procedure 'no_such_step'"):
        load("rocky9.4", "default", tmp_path)
