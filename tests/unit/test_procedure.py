"""Procedures: found by layers, read and never executed, refused where others could change them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.recipes import procedure
from xcat_avs.recipes.procedure import Layer

PYTHON = '''"""{doc}

More of it.
"""

OPTIONS = {{"count": (3, "how many"), "names": (("a", "b"), "which"), "force": (False, ""), "text": ("x", "")}}


def run(ctx):
    raise AssertionError("listing executes nothing")


raise AssertionError("listing executes nothing")
'''
SHELL = """#!/bin/sh
# {doc}
# OPTION level=7   how loud
# OPTION empty=
# more words
exit 9
"""


def put(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def layers(tmp_path: Path) -> list[Layer]:
    found = [Layer(name, tmp_path / name) for name in ("common", "el", "el9")]
    found[0].directory.mkdir()
    return found


def test_a_python_procedure_is_read(layers: list[Layer]) -> None:
    path = put(layers[0].directory / "one.py", PYTHON.format(doc="Do one thing"))
    found = procedure.find("one", layers)
    assert (found.name, found.path, found.layer, found.doc) == ("one", path, "common", "Do one thing")
    assert {name: option.default for name, option in found.options.items()} == {
        "count": 3, "names": ("a", "b"), "force": False, "text": "x",
    }  # fmt: skip
    assert found.options["count"].help == "how many"
    assert not found.executable
    assert found.source == path.read_bytes()
    assert found.overridden is None


@pytest.mark.parametrize("name", ["one.sh", "one"])
def test_an_executable_is_read(layers: list[Layer], name: str) -> None:
    put(layers[0].directory / name, SHELL.format(doc="Do it in a shell"))
    found = procedure.find("one", layers)
    assert found.executable
    assert found.doc == "Do it in a shell"
    assert {name: (option.default, option.help) for name, option in found.options.items()} == {
        "level": ("7", "how loud"), "empty": ("", ""),
    }  # fmt: skip


def test_an_executable_may_be_no_text(layers: list[Layer]) -> None:
    path = layers[0].directory / "one"
    path.write_bytes(b"\x7fELF\0\xff")
    path.chmod(0o755)
    assert procedure.find("one", layers).doc == ""


def test_the_last_layer_wins_and_knows_what_it_overrides(layers: list[Layer]) -> None:
    for layer in layers:
        put(layer.directory / "one.py", PYTHON.format(doc=layer.name))
    put(layers[1].directory / "one.py", PYTHON.format(doc="el"))
    found = procedure.find("one", layers)
    assert [found.layer, found.overridden.layer, found.overridden.overridden.layer] == ["el9", "el", "common"]
    assert procedure.find("one", layers[:2]).layer == "el"


def test_an_executable_may_override_a_python_procedure(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.py", PYTHON.format(doc="x"))
    put(layers[2].directory / "one.sh", SHELL.format(doc="y"))
    found = procedure.find("one", layers)
    assert found.executable
    assert not found.overridden.executable


def test_twice_in_one_layer(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.py", PYTHON.format(doc="x"))
    put(layers[0].directory / "one.sh", SHELL.format(doc="y"))
    with pytest.raises(AvsError, match="is there twice"):
        procedure.find("one", layers)


@pytest.mark.parametrize("name", ["on", "../common/one", "one.py", "", ".", "one\n", "/bin/sh"])
def test_unknown(layers: list[Layer], name: str) -> None:
    put(layers[0].directory / "one.py", PYTHON.format(doc="x"))
    with pytest.raises(NotFoundError, match="unknown procedure") as caught:
        procedure.find(name, layers)
    assert str(layers[0].directory) in str(caught.value)
    if name == "on":
        assert "did you mean one?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def run(ctx:\n", "no Python procedure"),
        ("x = 1\n", r"no function run\(ctx\)"),
        ("class run: pass\n", r"no function run\(ctx\)"),
        ("OPTIONS = {'a': 1}\ndef run(ctx): pass\n", "OPTIONS must be"),
        ("OPTIONS = dict(a=1)\ndef run(ctx): pass\n", "OPTIONS must be"),
        ("OPTIONS = {'a': (open('/etc/passwd'), '')}\ndef run(ctx): pass\n", "OPTIONS must be"),
        ("\0", "no Python procedure"),
    ],
)
def test_bad_python(layers: list[Layer], text: str, words: str) -> None:
    path = put(layers[0].directory / "one.py", text)
    with pytest.raises(AvsError, match=words) as caught:
        procedure.find("one", layers)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("default", ["0.5", "None", "{}", "b'x'"])
def test_an_option_of_a_type_that_no_recipe_can_set(layers: list[Layer], default: str) -> None:
    """A default of another type would be replaced by a text as soon as a recipe sets it."""
    put(layers[0].directory / "one.py", f"OPTIONS = {{'a': ({default}, 'help')}}\ndef run(ctx): pass\n")
    with pytest.raises(AvsError, match="OPTIONS"):
        procedure.find("one", layers)


def test_an_annotated_table_of_options_is_not_passed_over(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.py", "OPTIONS: dict = {'a': (1, 'help')}\ndef run(ctx): pass\n")
    assert list(procedure.find("one", layers).options) == ["a"]


CHOICES = "OPTIONS = {'mode': ('keep', 'help', ('keep', 'drop')), 'words': (('a',), 'help', ('a', 'b'))}\ndef run(ctx): pass\n"


def test_the_kind_of_packages_that_it_has_work_with(layers: list[Layer]) -> None:
    put(layers[0].directory / "a.py", 'PACKAGES = "rpm"\n\ndef run(ctx): pass\n')
    put(layers[1].directory / "a.sh", "#!/bin/sh\n")
    assert procedure.find("a", layers[:1]).packages == "rpm"
    assert procedure.find("a", layers).packages == "", "it is the site's own, for all images"
    for value in ('"apk"', "1", "os.name"):
        put(layers[0].directory / "a.py", f"PACKAGES = {value}\ndef run(ctx): pass\n")
        with pytest.raises(AvsError, match='PACKAGES must be "rpm" or "deb"'):
            procedure.find("a", layers[:1])


def test_choices(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.py", CHOICES)
    found = procedure.find("one", layers).options
    assert (found["mode"].choices, found["words"].choices) == (("keep", "drop"), ("a", "b"))
    put(
        layers[0].directory / "two.sh",
        "#!/bin/sh\n# OPTION mode=keep  (keep|drop) what to do\n# OPTION other=x (see ntp) help\n",
        0o755,
    )
    found = procedure.find("two", layers).options
    assert found["mode"] == procedure.Option("mode", "keep", "what to do", ("keep", "drop"))
    assert (found["other"].choices, found["other"].help) == ((), "(see ntp) help")


def test_choices_of_what_is_overridden(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.py", CHOICES)
    put(
        layers[1].directory / "one.py",
        "OPTIONS = {'mode': ('drop', 'help'), 'words': (('c',), 'help')}\ndef run(ctx): pass\n",
    )
    found = procedure.find("one", layers).options
    assert (found["mode"].default, found["mode"].choices) == ("drop", ("keep", "drop"))
    assert found["words"].choices == ()  # it is another option by the same name


@pytest.mark.parametrize(
    "fields",
    ["'a', 'help', ('b',)", "'a', 'help', 'abc'", "1, 'help', ('1', '2')", "True, 'help', ('yes',)", "('a', 'c'), '', ('a', 'b')", "'a', '', ('a',), 1"],
)  # fmt: skip
def test_choices_that_are_none(layers: list[Layer], fields: str) -> None:
    put(layers[0].directory / "one.py", f"OPTIONS = {{'a': ({fields})}}\ndef run(ctx): pass\n")
    with pytest.raises(AvsError, match="OPTIONS must be"):
        procedure.find("one", layers)


def test_an_executable_whose_default_is_no_choice(layers: list[Layer]) -> None:
    put(layers[0].directory / "one.sh", "#!/bin/sh\n# OPTION mode=other  (keep|drop) what to do\n", 0o755)
    with pytest.raises(AvsError, match="the default of the option mode is none of its choices"):
        procedure.find("one", layers)


def test_not_executable(layers: list[Layer], tmp_path: Path) -> None:
    path = put(layers[0].directory / "one.sh", SHELL.format(doc="x"), mode=0o644)
    with pytest.raises(AvsError, match=f"chmod 755 {path}"):
        procedure.find("one", layers)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o777, 0o666])
def test_a_file_that_others_may_write(layers: list[Layer], mode: int) -> None:
    path = put(layers[0].directory / "one.py", PYTHON.format(doc="x"), mode)
    with pytest.raises(AvsError, match=f"{path} may be written by others"):
        procedure.find("one", layers)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_belongs_to_another(layers: list[Layer], what: str) -> None:
    path = put(layers[0].directory / "one.py", PYTHON.format(doc="x"), 0o644)
    os.chown(path if what == "file" else path.parent, 12345, 0)
    with pytest.raises(AvsError, match="belongs to uid 12345"):
        procedure.find("one", layers)


def test_a_directory_that_others_may_write(layers: list[Layer]) -> None:
    path = put(layers[0].directory / "one.py", PYTHON.format(doc="x"))
    path.parent.chmod(0o775)
    with pytest.raises(AvsError, match=f"{path.parent} may be written by others"):
        procedure.find("one", layers)


def test_a_directory_above_that_others_may_write(tmp_path: Path) -> None:
    """Who may write there may put another directory in the place of this one."""
    layer = Layer("site", tmp_path / "custom/avs/procedures/common")
    put(layer.directory / "one.py", PYTHON.format(doc="x"))
    procedure.find("one", [layer])
    (tmp_path / "custom").chmod(0o777)
    with pytest.raises(AvsError, match="may be written by others"):
        procedure.find("one", [layer])


def test_a_link_into_a_directory_that_others_may_write(layers: list[Layer], tmp_path: Path) -> None:
    target = put(tmp_path / "open/one.py", PYTHON.format(doc="x"))
    target.parent.chmod(0o777)
    (layers[0].directory / "one.py").symlink_to(target)
    with pytest.raises(AvsError, match="may be written by others"):
        procedure.find("one", layers)


def test_shipped_procedures_are_trusted(tmp_path: Path) -> None:
    layer = Layer("shipped", tmp_path / "s", trusted=True)
    put(layer.directory / "one.py", PYTHON.format(doc="x"), 0o666)
    assert procedure.find("one", [layer]).name == "one"


def test_known(layers: list[Layer]) -> None:
    for name in ("b.py", "a.sh", "c"):
        put(layers[0].directory / name, "")
    put(layers[1].directory / "a.py", "")
    (layers[0].directory / "__init__.py").touch()
    (layers[0].directory / "directory").mkdir()
    assert procedure.known(layers) == ["a", "b", "c"]
