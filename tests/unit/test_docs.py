"""The manual pages say what the program does: modes, options, settings, procedures, examples."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from xcat_avs import __version__, modes, settings
from xcat_avs.build.context import BuildContext, perform
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.osvers import DISTRIBUTIONS
from xcat_avs.generate.aptsources import CODENAMES
from xcat_avs.recipes import procedure, recipe
from xcat_avs.recipes.procedure import Layer
from xcat_avs.recipes.recipe import option_text
from xcat_avs.request import OPTIONS
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import PackedSet
from xcat_avs.settings import FIELDS, Settings, load_site_settings, overlay_settings, sections

TOP = Path(__file__).resolve().parents[2]
PAGES = ("man1/avsimage.1", "man5/avs.conf.5", "man7/avs-procedures.7", "man5/avs-manifest.5", "man7/avs-runbook.7")
SHIPPED = sorted(path for path in (TOP / "xcat_avs/procedures").glob("*/*") if path.is_file())
ADDONS = sorted(path for path in (TOP / "xcat_avs/addons").glob("*/*") if path.is_file())
ESCAPES = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(ti": "~", r"\&": "", r"\(bu": "*"}


def plain(text: str) -> str:
    """Roff text as it is read: no fonts, no escapes, no quotes around the words of a macro."""
    text = re.sub(r"\\f[BIRP]", "", text)
    return re.sub(r"\\(?:\(..|.)", lambda match: ESCAPES[match.group()], text)


def source(page: str) -> str:
    return (TOP / "man" / page).read_text(encoding="ascii")


def read(page: str) -> str:
    return plain(re.sub(r'^\.\\".*\n', "", source(page), flags=re.MULTILINE))


def section(page: str, title: str) -> str:
    """What stands below a .SH or .SS heading, up to the next heading."""
    match = re.search(rf"^\.S[HS] {re.escape(title)}\n(.*?)(?=^\.S[HS] |\Z)", read(page), re.MULTILINE | re.DOTALL)
    assert match, f"{page} has no section {title}"
    return match.group(1)


def items(text: str) -> list[str]:
    """The heads of the tagged paragraphs."""
    return [re.sub(r"^\.[BI]+ ", "", head) for head in re.findall(r"^\.TP\n(.*)$", text, re.MULTILINE)]


def examples() -> dict[str, str]:
    """The examples of avs-procedures(7) that are marked with a file name."""
    marked = re.findall(r'^\.\\" example: (\S+)\n\.EX\n(.*?)^\.EE$', source(PAGES[2]), flags=re.MULTILINE | re.DOTALL)
    return {name: plain(text) for name, text in marked}


def write_example(directory: Path, name: str) -> Path:
    """Write an example to a directory that only its owner may write to."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(examples()[name], encoding="utf-8")
    path.chmod(0o755 if name.endswith(".sh") else 0o644)
    return path


@pytest.mark.parametrize("page", PAGES)
def test_page_is_clean(page: str) -> None:
    path = str(TOP / "man" / page)
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True, check=False)
    assert found.stdout + found.stderr == ""


@pytest.mark.parametrize("page", PAGES)
def test_page_names_the_version(page: str) -> None:
    assert f'"xcat-avs {__version__}"' in read(page)


def test_sections_of_avsimage_are_in_the_order_of_xcat() -> None:
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "PARAMETERS", "OPTIONS", "RETURN VALUE", "EXAMPLES", "FILES",
              "NOTES", "SEE ALSO"]  # fmt: skip
    assert re.findall(r"^\.SH (.*)$", read(PAGES[0]), re.MULTILINE) == wanted


@pytest.mark.parametrize("name", modes.table())
def test_mode_has_its_section_with_just_its_options(name: str) -> None:
    mode = modes.table()[name]
    flags = [option.words for option in mode.takes.values()]
    assert sorted(items(section(PAGES[0], name))) == sorted(flags)
    assert all(alias in read(PAGES[0]) for alias, of in modes.ALIASES.items() if of == name)
    assert name in section(PAGES[0], "MODE")
    assert mode.argument.strip("[]") in section(PAGES[0], name)


def test_every_option_is_taken_by_a_mode_and_so_documented() -> None:
    of_modes = {key for key, option in OPTIONS.items() if option.modes}
    assert {key for mode in modes.table().values() for key in mode.takes} == of_modes
    assert {name for option in OPTIONS.values() for name in option.modes} <= set(modes.table())


def test_options_of_all_modes() -> None:
    wanted = [option.words for key, option in OPTIONS.items() if not option.modes and key != "mode"]
    assert items(section(PAGES[0], "Options of all modes")) == wanted


def test_a_mode_has_words_of_its_own_only_where_it_needs_them() -> None:
    for mode in modes.table().values():
        assert {*mode.words, *mode.values, *mode.needs} <= set(mode.takes), mode.name
        assert [key for key, text in mode.words.items() if text == OPTIONS[key].help] == [], mode.name


def test_json_of_every_mode() -> None:
    assert items(section(PAGES[0], "JSON")) == list(modes.table())


def test_modes_and_options_in_examples_exist() -> None:
    table = modes.table()
    known = {flag for option in OPTIONS.values() for flag in option.flags}
    special = {flag for option in OPTIONS.values() if option.modes for flag in option.flags}
    texts = [read(page) for page in PAGES]
    texts += [(TOP / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGES.md")]
    lines = [line for text in texts for line in re.findall(r"^ *(?:eval .*)?avsimage +-c (.*)$", text, re.MULTILINE)]
    assert len(lines) >= 10
    for line in lines:
        words = re.sub(r"'[^']*'|#.*", "", line).rstrip(')"').split()
        if words[0] == "MODE":
            continue  # the synopsis
        mode = table[words[0]]
        flags = [word for word in words if word.startswith("-")]
        assert set(flags) <= known, line
        taken = {flag for option in mode.takes.values() for flag in option.flags}
        assert {flag for flag in flags if flag in special} <= taken, line


def test_environment_of_mode_env_is_named() -> None:
    text = (TOP / "xcat_avs/modes/env.py").read_text(encoding="utf-8")
    names = re.findall(r'"((?:AVS|FSVS)_[A-Z]+)"', text)
    assert names
    assert [name for name in names if name not in section(PAGES[0], "env")] == []


def test_what_an_image_says_of_itself_is_named() -> None:
    text = (TOP / "xcat_avs/pack/packing.py").read_text(encoding="utf-8")
    names = re.findall(r'"(AVS_[A-Z]+)":', text)
    assert names
    assert [name for name in names if name not in section(PAGES[0], "IN THE IMAGE")] == []


def test_fields_of_a_packed_set_and_of_the_journal_are_named() -> None:
    for kind, title in ((PackedSet, "JSON"), (JournalEntry, "FILES")):
        text = section(PAGES[0], title)
        assert [name for name in kind.__dataclass_fields__ if not re.search(rf"\b{name}\b", text)] == []


def test_fields_of_a_status_are_named() -> None:
    text = (TOP / "xcat_avs/modes/status.py").read_text(encoding="utf-8")
    names = re.findall(r'"([a-z_]+)": ', text.partition("def _document")[2].partition("\n\n\n")[0])
    described = section(PAGES[0], "JSON").partition("\n.B status\n")[2].partition("\n.TP\n")[0]
    assert len(names) > 10
    assert [name for name in names if name not in ("yes", "no") and not re.search(rf"\b{name}\b", described)] == []


def test_what_a_recipe_may_change_is_in_the_page() -> None:
    heads = " ".join(items(section(PAGES[2], "RECIPES")))
    assert [part for part in settings.SECTIONS if f"[{part}]" in heads] == list(recipe.CHANGEABLE)


def test_every_setting_is_in_the_page_with_its_default() -> None:
    wanted = [f"[{part}] {name} = {option_text(field.default)}".rstrip() for (part, name), field in FIELDS.items()]
    found = [item for part in settings.SECTIONS for item in items(section(PAGES[1], f"[{part}]"))]
    assert found == wanted


def test_every_choice_of_a_setting_is_in_its_section() -> None:
    for (part, name), field in FIELDS.items():
        text = section(PAGES[1], f"[{part}]")
        assert [item for item in field.metadata["choices"] if item not in text] == [], name


def test_every_setting_is_in_the_shipped_file_with_its_default() -> None:
    path = TOP / "share/xcat/avs/avs.conf"
    shipped = sections(settings.read_ini(path))
    assert [(part, name) for part, values in shipped.items() for name in values] == list(FIELDS)
    assert overlay_settings(Settings(), shipped, str(path)) == Settings()


def test_every_distribution_and_suite_is_in_the_page() -> None:
    text = section(PAGES[1], "GENERATORS")
    assert [name for name in DISTRIBUTIONS if not re.search(rf"\b{name}\b", text)] == []
    suites = [f"{number} {suite}" for table in CODENAMES.values() for number, suite in table.items()]
    assert [suite for suite in suites if suite not in text] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_procedure_is_in_the_page_with_its_options(path: Path) -> None:
    found = procedure.load(path, Layer("shipped", path.parent, trusted=True))
    text = section(PAGES[2], found.name)
    assert items(text) == [f"{name} = {option_text(option.default)}".rstrip() for name, option in found.options.items()]
    assert " ".join(text.split()).startswith(found.doc)


def test_functions_of_avs_image_mgr_are_shipped_procedures() -> None:
    table = re.search(r"^\.EX\n(.*?)^\.EE", section(PAGES[2], "FUNCTIONS OF AVS_IMAGE_MGR"), re.MULTILINE | re.DOTALL)
    assert table
    rows = [line.split()[:2] for line in table.group(1).splitlines()]
    shipped = {path.stem for path in SHIPPED}
    assert [name for _, name in rows if name not in shipped] == []
    setup = {name for name in shipped if name.startswith("setup_")} - {"setup_network"}  # a new one
    assert {old for old, _ in rows} >= setup | {"build_prep"}


@pytest.mark.parametrize("path", ADDONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_addon_is_in_the_page_with_its_options(path: Path) -> None:
    found = procedure.load(path, Layer("shipped", path.parent, trusted=True))
    part = read(PAGES[2]).partition("\n.SH SHIPPED ADD-ONS\n")[2].partition("\n.SH ")[0]
    text = part.partition(f"\n.SS {found.name}\n")[2].partition("\n.SS ")[0]
    assert items(text) == [f"{name} = {option_text(option.default)}".rstrip() for name, option in found.options.items()]
    assert " ".join(text.split()).startswith(found.doc)


def test_the_option_of_every_addon_is_in_the_page() -> None:
    heads = items(section(PAGES[2], "ADD-ONS"))
    assert [f"{name} = {option_text(option.default)}" for name, option in recipe.ADDON_OPTIONS.items()] == heads


def test_variables_of_avsaddons_are_named() -> None:
    text = (TOP / "share/xcat/avs/avsaddons").read_text(encoding="utf-8")
    names = set(re.findall(r"\b(?:AVS_ADDONS_[A-Z]+)\b", text))
    assert names
    assert [name for name in sorted(names) if name not in section(PAGES[2], "On the nodes")] == []


def test_steps_of_the_shipped_recipe_are_in_the_page() -> None:
    shipped = settings.read_ini(TOP / "share/xcat/avs/recipes/default.conf")
    assert f"in this order: {shipped.get('recipe', 'steps')}." in section(PAGES[2], "SHIPPED PROCEDURES")


def test_everything_that_ctx_has_and_does_is_in_the_page() -> None:
    text = section(PAGES[2], "What ctx has") + section(PAGES[2], "What ctx does")
    names = set(BuildContext.__dataclass_fields__) | {name for name in dir(BuildContext) if not name.startswith("_")}
    assert sorted(name for name in names if not re.search(rf"\bctx\.{name}\b", text)) == []
    assert sorted(set(re.findall(r"\bctx\.(\w+)", text)) - names) == []


def test_environment_of_executables_is_named() -> None:
    text = (TOP / "xcat_avs/build/context.py").read_text(encoding="utf-8")
    names = re.findall(r'"(AVS_[A-Z]+)"', text)
    assert names
    assert [name for name in names if name not in section(PAGES[2], "EXECUTABLE PROCEDURES")] == []


def test_examples_are_there() -> None:
    assert list(examples()) == [
        "procedures/common/site_time.py", "procedures/common/cleanup.py", "procedures/common/image_release.sh",
        "addons/common/tools.py", "recipes/site.conf", "recipes/site.el.conf", "images/example.prod/recipe.conf",
    ]  # fmt: skip


@pytest.fixture
def site(ctx: BuildContext) -> Path:
    """A site that has all the examples."""
    top = ctx.installdir / "custom/avs"
    for name in examples():
        write_example(top, name)
    return top


@pytest.mark.parametrize("osvers", ["rocky9.4", "debian12"])
def test_examples_run(ctx: BuildContext, site: Path, osvers: str) -> None:
    """Every step and add-on of the examples, but those that are shipped and need packages."""
    image = OsImage(f"{osvers}-x86_64-netboot-example.prod", {})
    found = recipe.load(image, ctx.installdir, Settings())
    middle = ["setup_yum_repos"] if osvers == "rocky9.4" else []
    assert [step.name for step in found.steps] == [
        "prepare_image_directory", "generate_image", "build_prep", *middle, "site_time", "image_release", "cleanup",
    ]  # fmt: skip
    assert found.settings.install_docs is False
    for name in ("var/log/x", "var/cache/apt/x", "usr/share/sounds/x", "usr/share/misc/x"):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).write_text("x")
    for step in [step for step in found.steps if step.name not in ("prepare_image_directory", "generate_image")]:
        perform(replace(ctx, image=image, recipe=found, procedure=step.procedure, options=step.options))
    for addon in found.addons:
        perform(replace(ctx, image=image, recipe=found, procedure=addon.procedure, options=addon.options))
    chrony = "etc/chrony.conf" if osvers == "rocky9.4" else "etc/chrony/chrony.conf"
    assert (ctx.root / chrony).read_text() == "server ntp.example.com iburst\n"
    text = f"IMAGE=example.prod\nOSVERS={osvers}\nCONTACT=hpc-admins@example.com\n"
    assert (ctx.root / "etc/image-release").read_text() == text
    assert (ctx.root / "opt/tools/RELEASE").read_text() == "2.1\n"
    assert (ctx.root / "var/log/x").read_text() == "x", "the example changes a default of the shipped procedure"
    assert not (ctx.root / "var/cache/apt/x").exists(), "the shipped procedure was called"
    assert [path.name for path in (ctx.root / "usr/share").iterdir()] == ["misc"]


def test_procedure_that_a_site_begins_with(ctx: BuildContext, tmp_path: Path) -> None:
    """The commented example of a site: it changes nothing as it is, and what its comments say works."""
    shutil.copytree(TOP / "share/xcat/avs/custom", tmp_path / "install/custom/avs")
    for path in [tmp_path / "install", *(tmp_path / "install").rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o022)  # whatever the checkout has
    image = OsImage("rocky9.4-x86_64-netboot-example.prod", {})
    plain = recipe.load(image, tmp_path / "other", Settings())
    found = recipe.load(image, tmp_path / "install", Settings())
    assert [step.name for step in found.steps] == [step.name for step in plain.steps]
    assert found.settings == load_site_settings(Settings(), tmp_path / "install") == Settings()
    own = tmp_path / "install/custom/avs/images/example.prod/recipe.conf"
    own.write_text(re.sub(r"^#(?=[\[a-z])", "", own.read_text(), flags=re.MULTILINE).replace("base = site\n", ""))
    step = recipe.load(image, tmp_path / "install", Settings()).steps[-2]
    assert dict(step.options) == {"contact": "hpc-admins@example.com"}
    perform(replace(ctx, image=image, procedure=step.procedure, options=step.options))
    assert (ctx.root / "etc/motd").read_text() == f"{image.name}\nQuestions to hpc-admins@example.com\n"


def test_every_shipped_recipe_and_key_is_in_the_page() -> None:
    bases = {path.name.split(".")[0] for path in (TOP / "share/xcat/avs/recipes").glob("*.conf")} - {"default"}
    assert [name.removeprefix(".B ") for name in items(section(PAGES[2], "Shipped recipes"))] == sorted(
        bases, key=["minimal", "example", "compute", "login"].index
    )
    heads = [head.split(" =")[0] for head in items(section(PAGES[2], "In [recipe]"))]
    assert sorted(heads) == sorted(recipe.KEYS)


def test_every_shipped_file_is_installed() -> None:
    text = (TOP / "setup.cfg").read_text(encoding="utf-8")
    patterns = re.findall(r"share/xcat/avs/\S+$", text.partition("[options.data_files]")[2], re.MULTILINE)
    installed = {path for pattern in patterns for path in TOP.glob(pattern)}
    there = {path for path in (TOP / "share/xcat/avs").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert sorted(there - installed - {TOP / "share/xcat/avs/install-xcat"}) == []


def test_readme_and_changes_name_every_mode_and_the_version() -> None:
    for name in ("README.md", "CHANGES.md"):
        text = (TOP / name).read_text(encoding="utf-8")
        assert [mode for mode in modes.table() if f"`{mode}`" not in text] == []
        assert __version__ in text
        if name == "README.md":
            status = text.partition("## Status")[2]
            assert [mode for mode in modes.table() if f"`{mode}`" not in status] == []


def test_paths_in_contributing_exist() -> None:
    """Each path that begins at the top, and what a row of the table of the source tree names beside its first."""
    text = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:xcat_avs|share|man|tests)/[\w./-]+)`", text)
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*/.*$", text, re.MULTILINE)]
    assert len(rows) > 10
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        named += [first, *(str(Path(first).parent / other) for other in others)]
    placeholders = re.compile(r"NAME|LAYER")
    assert [path for path in named if not placeholders.search(path) and not (TOP / path).exists()] == []
    order = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", text, re.MULTILINE)
    assert [name for names in order for name in names if name and not (TOP / "xcat_avs" / name).is_dir()] == []
