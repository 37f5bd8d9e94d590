"""Recipes: steps, options and settings through all layers."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.recipes import recipe
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings, share_dir

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
    assert found.files[0] == share_dir() / "recipes/default.conf"
    assert all(step.procedure.doc for step in found.steps)
    assert all(set(step.options) == set(step.procedure.options) for step in found.steps)


def test_steps_that_only_other_packages_have_are_none(install: Path) -> None:
    """They may be named all the same, as a place and to be taken away."""
    put(install, "recipes/default.conf", "[recipe]\nsteps_add = setup_apt_sources after setup_yum_repos\n")
    put(install, "recipes/debian.conf", "[setup_yum_repos]\nepel = http://x\n")
    assert names(load(install))[3:] == ["setup_yum_repos", "cleanup"]
    assert names(load(install, DEBIAN))[3:] == ["setup_apt_sources", "cleanup"]


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


FLOW = ["prepare_image_directory", "generate_image", "build_prep", "setup_yum_repos", "cleanup"]


def test_base_stands_before_the_file_that_names_it(install: Path) -> None:
    small = put(install, "recipes/small.conf", "[recipe]\nsteps = generate_image, build_prep\n[cleanup]\nlogs = no\n")
    el = put(
        install, "recipes/small.el.conf", "[recipe]\nsteps_add = cleanup after build_prep\n[cleanup]\nidentity = no\n"
    )
    own = put(install, "images/compute/recipe.conf", "[recipe]\nbase = small\n[cleanup]\nlogs = yes\n")
    found = load(install)
    assert names(found) == ["generate_image", "build_prep", "cleanup"]
    assert list(found.files) == [share_dir() / "recipes/default.conf", small, el, own]
    assert (found.steps[2].options["logs"], found.steps[2].options["identity"]) == (True, False)
    assert [step.recipe for step in found.steps] == [small, small, el]
    assert names(load(install, DEBIAN)) == [name for name in FLOW if name != "setup_yum_repos"], (
        "the base is that of one image"
    )


def test_base_of_a_base_through_the_layers(install: Path) -> None:
    put(install, "recipes/one.conf", "[recipe]\nsteps = generate_image\n")
    put(install, "recipes/two.conf", "[recipe]\nbase = one\nsteps_add = cleanup after generate_image\n")
    put(install, "recipes/el9.conf", "[recipe]\nbase = two\nsteps_add = build_prep before cleanup\n")
    assert names(load(install)) == ["generate_image", "build_prep", "cleanup"]
    # The same base once more, later: it counts there, and begins anew.
    put(install, "images/compute/recipe.conf", "[recipe]\nbase = one\n")
    assert names(load(install)) == ["generate_image"]


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"recipes/a.conf": "a"}, "a -> a"),
        ({"recipes/a.conf": "b", "recipes/b.conf": "c", "recipes/c.conf": "b"}, "b -> c -> b"),
        ({"recipes/a.conf": "b", "recipes/b.el9.conf": "a", "recipes/b.conf": ""}, "a -> b -> a"),
        ({"recipes/a.conf": "default"}, "default -> a -> default"),
    ],
)
def test_a_base_that_comes_back_to_itself(install: Path, files: dict[str, str], circle: str) -> None:
    for name, base in files.items():
        put(install, name, f"[recipe]\nbase = {base}\n")
    put(install, "recipes/default.conf", "[recipe]\nbase = a\n")
    with pytest.raises(AvsError, match=f"is its own base: {circle}$"):
        load(install)


def test_a_base_that_is_not_there(install: Path) -> None:
    put(install, "recipes/compute.conf", "[recipe]\nsteps = cleanup\n")
    path = put(install, "images/compute/recipe.conf", "[recipe]\nbase = compte\n")
    with pytest.raises(NotFoundError) as caught:
        load(install)
    assert f"{path}: unknown recipe 'compte' as base (did you mean compute" in str(caught.value)
    path.write_text("[recipe]\nbase = ../../x\n")
    with pytest.raises(NotFoundError, match=r"unknown recipe '\.\./\.\./x'"):
        load(install)


def test_a_base_that_others_may_write(install: Path) -> None:
    path = put(install, "recipes/small.conf", "[recipe]\nsteps = cleanup\n")
    put(install, "images/compute/recipe.conf", "[recipe]\nbase = small\n")
    path.chmod(0o666)
    with pytest.raises(AvsError, match=f"{path} may be written by others"):
        load(install)


def test_steps_are_taken_away_and_put_in(install: Path) -> None:
    put(install, "procedures/common/mine.py", '"""Mine"""\ndef run(ctx): pass\n')
    put(install, "procedures/common/last.py", '"""Last"""\ndef run(ctx): pass\n')
    path = put(
        install,
        "images/compute/recipe.conf",
        "[recipe]\nsteps_remove = build_prep\nsteps_add = mine before setup_yum_repos,\n  last after cleanup\n  build_prep after mine\n",
    )
    found = load(install)
    assert names(found) == [
        "prepare_image_directory",
        "generate_image",
        "mine",
        "build_prep",
        "setup_yum_repos",
        "cleanup",
        "last",
    ]
    named = {step.name: step.recipe for step in found.steps}
    assert named["mine"] == named["build_prep"] == path
    assert named["cleanup"] == share_dir() / "recipes/default.conf"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("steps_remove = clenup", "steps_remove names 'clenup', which is no step (did you mean cleanup"),
        ("steps_add = mine", "steps_add has 'mine'; it takes `STEP after STEP`"),
        ("steps_add = mine beside cleanup", "steps_add has 'mine beside cleanup'"),
        ("steps_add = cleanup after build_prep", "steps_add names 'cleanup', which is a step already"),
        (
            "steps_add = mine after clenup",
            "steps_add puts 'mine' after 'clenup', which is no step (did you mean cleanup",
        ),
        ("steps_add = clenup after build_prep", "unknown procedure 'clenup'"),
        ("steps_remove = cleanup, cleanup", "step 'cleanup' is named twice"),
        ("addons = clenup", "unknown add-on 'clenup'"),
        ("addons = a, a", "add-on 'a' is named twice"),
    ],
)
def test_bad_changes_of_steps(install: Path, line: str, words: str) -> None:
    path = put(install, "recipes/el9.conf", f"[recipe]\n{line}\n")
    with pytest.raises(AvsError) as caught:
        load(install)
    assert f"{path}: {words}" in str(caught.value)


ADDON = '"""Tools for {who}"""\nOPTIONS = {{"version": ("1", "which")}}\ndef run(ctx): pass\n'


def test_addons(install: Path) -> None:
    put(install, "addons/common/tools.py", ADDON.format(who="all"))
    put(install, "addons/el9/tools.py", ADDON.format(who="EL 9"))
    put(install, "images/compute/addons/gpu.py", ADDON.format(who="one image"))
    put(
        install,
        "procedures/common/tools.py",
        '"""A step of the same name"""\nOPTIONS = {"n": (1, "count")}\ndef run(ctx): pass\n',
    )
    path = put(
        install,
        "images/compute/recipe.conf",
        "[recipe]\naddons = gpu, tools\nsteps_add = tools before cleanup\n[addon tools]\nversion = 2\n[tools]\nn = 7\n",
    )
    found = load(install)
    own = [{name: value for name, value in addon.options.items() if name != "exclude"} for addon in found.addons]
    assert [(addon.name, addon.procedure.layer, addon.recipe) for addon in found.addons] == [
        ("gpu", "image compute", path),
        ("tools", "site el9", path),
    ]
    assert own == [{"version": "1"}, {"version": "2"}]
    assert "var/cache/apt" in found.addons[0].options["exclude"]
    assert found.addons[1].procedure.overridden.layer == "site common"
    assert next(dict(step.options) for step in found.steps if step.name == "tools") == {"n": 7}
    assert found.addons[1].procedure.doc == "Tools for EL 9"
    assert "addons = gpu, tools\n" in found.text()
    assert re.search(r"^\[addon tools\]\nexclude = .*\nversion = 2$", found.text(), re.MULTILINE)
    assert load(install, DEBIAN).addons == ()


def test_options_of_an_addon_that_do_not_exist(install: Path) -> None:
    put(install, "addons/common/tools.py", ADDON.format(who="all"))
    path = put(install, "recipes/el9.conf", "[recipe]\naddons = tools\n[addon tools]\nverson = 2\n")
    with pytest.raises(AvsError, match=f"{path}: add-on 'tools' has no option 'verson'.*did you mean version"):
        load(install)
    path.write_text("[recipe]\naddons = tools\n[tools]\nversion = 2\n")
    with pytest.raises(AvsError, match=rf"{path}: \[tools\] .*tools is an add-on: \[addon tools\]"):
        load(install)
    path.write_text("[addon tols]\nversion = 2\n")
    with pytest.raises(AvsError, match=rf"{path}: unknown add-on \[tols\].*did you mean tools"):
        load(install)


def test_layers_of_addons(install: Path) -> None:
    layers = recipe.procedure_layers(ROCKY, install, addons=True)
    assert [layer.name for layer in layers][4:] == [
        "site common",
        "site el",
        "site el9",
        "site rocky9.4",
        "image compute",
    ]
    assert [layer.directory for layer in layers][4:] == [
        *(install / "custom/avs/addons" / name for name in ("common", "el", "el9", "rocky9.4")),
        install / "custom/avs/images/compute/addons",
    ]
    assert layers[0].directory.name == "common"
    assert layers[0].directory.parent.name == "addons"
    assert layers[0].trusted


@pytest.mark.parametrize(
    ("section", "option", "text"),
    [
        ("disable_services", "missing", "ignored"), ("enable_services", "missing", "no"), ("remove_python", "how", "all"),
        ("setup_disable_selinux", "mode", "off"), ("setup_kernel", "firmware", "yes"), ("setup_sshd", "use_dns", "true"),
        ("setup_time", "daemon", "crony"), ("addon lustre_server", "backend", "ext4"),
    ],
)  # fmt: skip
def test_a_word_that_is_no_choice_is_refused_before_the_build(
    install: Path, section: str, option: str, text: str
) -> None:
    name = section.removeprefix("addon ")
    named = f"addons = {name}" if section.startswith("addon ") else f"steps_add = {name} before cleanup"
    path = put(install, "images/compute/recipe.conf", f"[recipe]\n{named}\n[{section}]\n{option} = {text}\n")
    with pytest.raises(AvsError) as caught:
        load(install)
    assert f"{path}: [{section}] {option} is {text!r}; it takes " in caught.value.text


def test_an_item_of_a_list_that_is_no_choice(install: Path) -> None:
    source = "OPTIONS = {'what': (('a',), 'help', ('a', 'bee'))}\ndef run(ctx): pass\n"
    put(install, "procedures/common/mine.py", source)
    text = "[recipe]\nsteps_add = mine before cleanup\n[mine]\nwhat = {}\n"
    put(install, "images/compute/recipe.conf", text.format("bee, a"))
    assert load(install).steps[-2].options == {"what": ("bee", "a")}
    put(install, "images/compute/recipe.conf", text.format("a, be"))
    with pytest.raises(AvsError, match=r"\[mine\] what is 'a, be'; it takes a or bee \(did you mean bee\?\)"):
        load(install)


def test_each_file_is_read_once(install: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(install, "recipes/mine.conf", "[recipe]\n[cleanup]\nlogs = no\n")
    put(install, "recipes/default.conf", "[recipe]\nbase = mine\n")
    put(install, "images/compute/recipe.conf", "[recipe]\nbase = mine\n[pack]\nmethod = tar\n")
    read: list[Path] = []
    real = settings.read_ini

    def counting(path: Path) -> configparser.ConfigParser:
        read.append(path)
        return real(path)

    monkeypatch.setattr(settings, "read_ini", counting)
    found = load(install)
    assert found.settings.method == "tar"
    assert sorted(read) == sorted(set(found.files))
    assert len(found.files) == len(set(found.files)) + 1  # mine.conf holds at both places
