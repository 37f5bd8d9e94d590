"""The manual pages say what the program does: modes, options, settings, procedures, examples."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xcat_avs import __version__, cli, config, modes, procedure, recipe
from xcat_avs.config import FIELDS, Settings
from xcat_avs.context import BuildContext
from xcat_avs.generate.aptsources import CODENAMES
from xcat_avs.image import DISTRIBUTIONS, OsImage
from xcat_avs.journal import Entry
from xcat_avs.pack.publish import PackedSet
from xcat_avs.procedure import Layer
from xcat_avs.recipe import option_text
from xcat_avs.request import Request

TOP = Path(__file__).resolve().parents[2]
PAGES = ("man1/avsimage.1", "man5/avs.conf.5", "man7/avs-procedures.7", "man5/avs-manifest.5")
SHIPPED = sorted(path for path in (TOP / "xcat_avs/procedures").glob("*/*") if path.is_file())
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
    flags = [cli.words_of(key, mode) for key in mode.takes]
    assert sorted(items(section(PAGES[0], name))) == sorted(flags)
    assert mode.alias in read(PAGES[0])
    assert name in section(PAGES[0], "MODE")


def test_every_option_is_taken_by_a_mode_and_so_documented() -> None:
    assert {key for mode in modes.table().values() for key in mode.takes} == set(cli.FLAGS)


def test_options_of_all_modes() -> None:
    assert items(section(PAGES[0], "Options of all modes")) == [flag for flag, _ in cli.COMMON]


def test_json_of_every_mode() -> None:
    assert items(section(PAGES[0], "JSON")) == list(modes.table())


def test_modes_and_options_in_examples_exist() -> None:
    table = modes.table()
    known = {flag for flag, _ in cli.FLAGS.values()} | {"-c"}
    known |= {flag for head, _ in cli.COMMON for flag in head.split()[0].split("|")}
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
        taken = {cli.FLAGS[key][0] for key in mode.takes}
        assert {flag for flag in flags if flag in {first for first, _ in cli.FLAGS.values()}} <= taken, line


def test_environment_of_mode_env_is_named() -> None:
    text = (TOP / "xcat_avs/modes/env.py").read_text(encoding="utf-8")
    names = re.findall(r'"((?:AVS|FSVS)_[A-Z]+)"', text)
    assert names
    assert [name for name in names if name not in section(PAGES[0], "env")] == []


def test_what_an_image_says_of_itself_is_named() -> None:
    text = (TOP / "xcat_avs/pack/__init__.py").read_text(encoding="utf-8")
    names = re.findall(r'"(AVS_[A-Z]+)":', text)
    assert names
    assert [name for name in names if name not in section(PAGES[0], "IN THE IMAGE")] == []


def test_fields_of_a_packed_set_and_of_the_journal_are_named() -> None:
    for kind, title in ((PackedSet, "JSON"), (Entry, "FILES")):
        text = section(PAGES[0], title)
        assert [name for name in kind.__dataclass_fields__ if not re.search(rf"\b{name}\b", text)] == []


def test_fields_of_a_status_are_named() -> None:
    text = (TOP / "xcat_avs/modes/status.py").read_text(encoding="utf-8")
    names = re.findall(r'"([a-z_]+)": ', text.partition("def _document")[2].partition("def _live")[0])
    described = section(PAGES[0], "JSON").partition("\n.B status\n")[2].partition("\n.TP\n")[0]
    assert len(names) > 10
    assert [name for name in names if name not in ("yes", "no") and not re.search(rf"\b{name}\b", described)] == []


def test_what_a_recipe_may_change_is_in_the_page() -> None:
    heads = " ".join(items(section(PAGES[2], "RECIPES")))
    assert [part for part in config.SECTIONS if f"[{part}]" in heads] == list(recipe.CHANGEABLE)


def test_every_setting_is_in_the_page_with_its_default() -> None:
    wanted = [f"[{part}] {name} = {option_text(field.default)}".rstrip() for (part, name), field in FIELDS.items()]
    found = [item for part in config.SECTIONS for item in items(section(PAGES[1], f"[{part}]"))]
    assert found == wanted


def test_every_choice_of_a_setting_is_in_its_section() -> None:
    for (part, name), field in FIELDS.items():
        text = section(PAGES[1], f"[{part}]")
        assert [item for item in field.metadata["choices"] if item not in text] == [], name


def test_every_setting_is_in_the_shipped_file_with_its_default() -> None:
    path = TOP / "share/xcat/avs/avs.conf"
    shipped = config.sections(config.read_ini(path))
    assert [(part, name) for part, values in shipped.items() for name in values] == list(FIELDS)
    assert config.overlay(Settings(), shipped, str(path)) == Settings()


def test_every_distribution_and_suite_is_in_the_page() -> None:
    text = section(PAGES[1], "GENERATORS")
    assert [name for name in DISTRIBUTIONS if not re.search(rf"\b{name}\b", text)] == []
    suites = [f"{number} {suite}" for table in CODENAMES.values() for number, suite in table.items()]
    assert [suite for suite in suites if suite not in text] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_procedure_is_in_the_page_with_its_options(path: Path) -> None:
    found = procedure.load(path, Layer("shipped", path.parent, trusted=True))
    text = section(PAGES[2], found.name)
    assert items(text) == [f"{name} = {option_text(option.default)}" for name, option in found.options.items()]
    assert " ".join(text.split()).startswith(found.doc)


def test_steps_of_the_shipped_recipe_are_in_the_page() -> None:
    shipped = config.read_ini(TOP / "share/xcat/avs/recipes/default.conf")
    assert f"in this order: {shipped.get('recipe', 'steps')}." in section(PAGES[2], "SHIPPED PROCEDURES")


def test_everything_that_ctx_has_and_does_is_in_the_page() -> None:
    text = section(PAGES[2], "What ctx has") + section(PAGES[2], "What ctx does")
    names = set(BuildContext.__dataclass_fields__) | {name for name in vars(BuildContext) if not name.startswith("_")}
    assert sorted(name for name in names if not re.search(rf"\bctx\.{name}\b", text)) == []
    assert sorted(set(re.findall(r"\bctx\.(\w+)", text)) - names) == []


def test_environment_of_executables_is_named() -> None:
    text = (TOP / "xcat_avs/context.py").read_text(encoding="utf-8")
    names = re.findall(r'"(AVS_[A-Z]+)"', text)
    assert names
    assert [name for name in names if name not in section(PAGES[2], "EXECUTABLE PROCEDURES")] == []


def test_examples_are_there() -> None:
    assert list(examples()) == ["setup_time.py", "image_release.sh", "recipe.conf"]


@pytest.mark.parametrize("name", ["setup_time.py", "image_release.sh"])
def test_example_loads(name: str, tmp_path: Path) -> None:
    found = procedure.load(write_example(tmp_path / "common", name), Layer("site common", tmp_path))
    assert found.doc
    assert found.options
    assert found.doc in examples()[name]


def test_recipe_of_the_examples_loads_with_them(tmp_path: Path) -> None:
    site = tmp_path / "custom/avs"
    write_example(site / "procedures/common", "setup_time.py")
    write_example(site / "procedures/common", "image_release.sh")
    write_example(site / "images/example.prod", "recipe.conf")
    found = recipe.load(OsImage("debian12-x86_64-netboot-example.prod", {}), tmp_path, Settings())
    options = {step.name: dict(step.options) for step in found.steps}
    assert options["setup_time"] == {"servers": ("ntp.example.com",)}
    assert options["image_release"] == {"contact": "hpc-admins@example.com"}


def test_example_script_runs(tmp_path: Path) -> None:
    script = write_example(tmp_path / "common", "image_release.sh")
    (tmp_path / "root/etc").mkdir(parents=True)
    env = {"PATH": "/usr/bin:/bin", "AVS_PROFILE": "p", "AVS_OSVERS": "v", "AVS_OPT_CONTACT": "c"}
    subprocess.run([str(script)], cwd=tmp_path / "root", env=env, check=True)
    assert (tmp_path / "root/etc/image-release").read_text(encoding="utf-8") == "IMAGE=p\nOSVERS=v\nCONTACT=c\n"


def test_options_of_the_page_are_fields_of_the_request() -> None:
    assert [name for name in cli.FLAGS if name not in Request.__dataclass_fields__] == []


def test_readme_and_changes_name_every_mode_and_the_version() -> None:
    for name in ("README.md", "CHANGES.md"):
        text = (TOP / name).read_text(encoding="utf-8")
        assert [mode for mode in modes.table() if f"`{mode}`" not in text] == []
        assert __version__ in text


def test_paths_of_the_table_in_readme_exist() -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*$", text, re.MULTILINE)]
    assert rows
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        paths = [TOP / first, *((TOP / first).parent / other for other in others)]
        assert [path for path in paths if not path.exists()] == []
