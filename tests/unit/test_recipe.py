"""Recipes: steps, options and settings through all layers."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from xcat_avs import config, recipe
from xcat_avs.config import Settings
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.image import OsImage
from xcat_avs.recipe import Recipe

ROCKY = OsImage("rocky9.4-x86_64-netboot-compute", {"provmethod": "netboot"}, "x.stanza, line 1")
DEBIAN = OsImage("debian12-x86_64-netboot-example.prod", {"provmethod": "netboot"}, "x.stanza, line 1")
SHIPPED = ["prepare_image_directory", "generate_image", "build_prep", "setup_yum_repos", "cleanup"]


@pytest.fixture
def install(tmp_path: Path) -> Path:
    (tmp_path / "install/custom/avs/recipes").mkdir(parents=True)
    return tmp_path / "install"


def load(install: Path, image: OsImage = ROCKY) -> Recipe:
    return recipe.load(image, install, Settings())


def put(install: Path, name: str, text: str) -> Path:
    path = install / "custom/avs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(found: Recipe) -> list[str]:
    return [step.name for step in found.steps]


@pytest.mark.parametrize("image", [ROCKY, DEBIAN])
def test_as_shipped(install: Path, image: OsImage) -> None:
    found = load(install, image)
    assert names(found)[:2] == SHIPPED[:2]
    assert names(found)[-1] == "cleanup"
    assert found.settings == Settings()
    assert found.files[0] == config.share_dir() / "recipes/default.conf"
    assert all(step.procedure.doc for step in found.steps)
    assert all(set(step.options) == set(step.procedure.options) for step in found.steps)


def test_the_more_special_layer_wins(install: Path) -> None:
    layers = [
        "recipes/default.conf",
        "recipes/el.conf",
        "recipes/el9.conf",
        "recipes/rocky9.4.conf",
        "images/compute/recipe.conf",
    ]
    paths = []
    for number, name in enumerate(layers):
        step = ["cleanup", "build_prep", "generate_image", "setup_yum_repos", "prepare_image_directory"][number]
        paths.append(put(install, name, f"[recipe]\nsteps = {step}\n"))
        found = load(install)
        assert names(found) == [step]
        assert list(found.files[1:]) == paths
    assert names(load(install, DEBIAN)) == ["cleanup"], "what is for el or for another image is not for it"


def test_options_are_typed_and_add_up(install: Path) -> None:
    put(install, "recipes/default.conf", "[cleanup]\nlogs = no\ntemporary = tmp\n")
    put(install, "images/compute/recipe.conf", "[cleanup]\nidentity = off\ntemporary = a, b\n  c\n")
    options = next(step.options for step in load(install).steps if step.name == "cleanup")
    assert options["logs"] is False
    assert options["identity"] is False
    assert options["temporary"] == ("a", "b", "c")
    assert "var/cache/apt" in options["caches"]


def test_settings_in_a_recipe(install: Path) -> None:
    put(install, "recipes/el9.conf", "[pack]\ncompress = zstd\n[image]\ntimeout = 5\n")
    settings = load(install).settings
    assert (settings.compress, settings.timeout) == ("zstd", 5)
    assert load(install, DEBIAN).settings == Settings()


@pytest.mark.parametrize(
    "line", ["store = file:///elsewhere", "state = /elsewhere", "logs = /elsewhere", "installdir = /elsewhere"]
)
def test_a_recipe_cannot_move_the_installation(install: Path, line: str) -> None:
    """The store, the state and the logs are those of the site, opened before any recipe is read: say so."""
    path = put(install, "recipes/el9.conf", f"[paths]\n{line}\n")
    with pytest.raises(AvsError, match=str(path)):
        load(install)


def test_a_site_procedure_is_found(install: Path) -> None:
    put(install, "procedures/el9/mine.py", '"""Mine"""\nOPTIONS = {"n": (1, "count")}\ndef run(ctx): pass\n')
    put(install, "images/compute/own.py", '"""Own"""\ndef run(ctx): pass\n')
    put(install, "recipes/el9.conf", "[recipe]\nsteps =\n  prepare_image_directory\n  mine\n  own\n[mine]\nn = 7\n")
    found = load(install)
    assert [(step.name, step.procedure.layer, dict(step.options)) for step in found.steps[1:]] == [
        ("mine", "site el9", {"n": 7}),
        ("own", "image compute", {}),
    ]


def test_a_section_for_a_step_that_is_left_out_is_fine(install: Path) -> None:
    put(install, "recipes/default.conf", "[recipe]\nsteps = cleanup\n[build_prep]\nhome = no\n")
    assert names(load(install)) == ["cleanup"]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[recipe]\nsteps = clenup\n", NotFoundError, ["unknown procedure 'clenup'", "did you mean cleanup"]),
        ("[recipe]\nsteps = cleanup, build_prep, cleanup\n", AvsError, ["'cleanup' is named twice"]),
        ("[recipe]\nstep = cleanup\n", AvsError, ["unknown setting 'step'", "did you mean steps"]),
        ("[cleanup]\nlgos = no\n", AvsError, ["procedure 'cleanup' has no option 'lgos'", "did you mean logs"]),
        ("[generate_image]\nfast = no\n", AvsError, ["procedure 'generate_image' has no option 'fast'", "it has none"]),
        ("[cleanup]\nlogs = perhaps\n", AvsError, ["[cleanup] logs is 'perhaps'", "yes or no"]),
        ("[clenup]\nlogs = no\n", AvsError, ["unknown procedure [clenup]", "did you mean cleanup"]),
        ("[pack]\ncompress = rar\n", AvsError, ["[pack] compress is 'rar'"]),
        ("[pack]\ncompres = xz\n", AvsError, ["unknown setting 'compres'", "did you mean compress"]),
        ("steps = cleanup\n", AvsError, ["is not an ini file"]),
        ("[recipe]\nsteps = ../../../tmp/x\n", NotFoundError, ["unknown procedure '../../../tmp/x'"]),
    ],
)
def test_a_bad_recipe_is_an_error_that_names_the_file(
    install: Path, text: str, kind: type[AvsError], words: list[str]
) -> None:
    path = put(install, "recipes/el9.conf", text)
    with pytest.raises(kind) as caught:
        load(install)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_no_steps(install: Path) -> None:
    put(install, "recipes/el9.conf", "[recipe]\nsteps =\n")
    with pytest.raises(AvsError, match="no recipe names any steps"):
        load(install)


def test_a_recipe_that_others_may_write(install: Path) -> None:
    path = put(install, "recipes/el9.conf", "[recipe]\nsteps = cleanup\n")
    path.chmod(0o666)
    with pytest.raises(AvsError, match=f"{path} may be written by others"):
        load(install)


def test_text_is_a_recipe_that_gives_the_same_again(install: Path, tmp_path: Path) -> None:
    put(install, "recipes/el9.conf", "[cleanup]\nlogs = no\ntemporary = a, b\n[build_prep]\nfiles =\n")
    found = load(install)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(found.text())
    assert parser["recipe"]["steps"] == ", ".join(names(found))
    other = tmp_path / "other"
    put(other, "recipes/default.conf", found.text())
    again = load(other)
    assert again.text() == found.text()
    assert [step.options for step in again.steps] == [step.options for step in found.steps]


def test_layers_of_procedures(install: Path) -> None:
    layers = recipe.procedure_layers(OsImage("ubuntu24.04-x86_64-netboot-p", {}), install)
    assert [layer.name for layer in layers] == [
        *(f"{home} {name}" for home in ("shipped", "site") for name in ("common", "debian", "ubuntu", "ubuntu24", "ubuntu24.04")),
        "image p",
    ]  # fmt: skip
    assert [layer.trusted for layer in layers] == [True] * 5 + [False] * 6
    assert layers[-1].directory == install / "custom/avs/images/p"
