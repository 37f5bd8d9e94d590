"""Every parser, with what nobody would write: it answers, or says what is wrong by an AvsError, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as some

from xcat_avs import clock, settings
from xcat_avs.build import markers
from xcat_avs.build.markers import StepResult
from xcat_avs.definitions import exlist, pkglist, stanza, tables
from xcat_avs.definitions.osimage import OsImage, check_tag_name
from xcat_avs.definitions.osvers import OsVersion
from xcat_avs.definitions.stanza import StanzaDefinitions
from xcat_avs.diff import differences
from xcat_avs.errors import AvsError
from xcat_avs.recipes import recipe
from xcat_avs.serve import journal, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import PackedSet
from xcat_avs.settings import Settings, overlay_settings, sections
from xcat_avs.store.fsvs import answers
from xcat_avs.tree import manifest, packages, rights

quick = hypothesis.settings(
    max_examples=30, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
LONG = "9" * 5000
# What means something to one of the parsers, and what is nasty to any.
WORDS = [
    "\n", "\r\n", "\0", "=", ":", "#", " ", "\t", "[", "]", ",", "/", "..", "@", "-", "+", "~", "%", "\\", '"', "'", "${X}", "$X", "\x1b[2J",
    "\x85", "\u2028", "\u202e", "²", "٣", "\udce9", "\ud800", "ß", LONG, "-1", "1e400", "nan", "null", "{", "}", "[" * 3000,
    "#INCLUDE:", "#INCLUDE:list#", "#ENV:A=b#", "#NEW_INSTALL_LIST#", "objtype=osimage", "    pkglist=", "name:", "osvers=", "[recipe]",
    "steps = cleanup", "steps_add = a after b", "addons", "base = default", "[addon kvm]", "[image]", "[osvers]", "x* = el", "[pack]", "method",
    "[paths]", "timeout = ", "yes", "rocky9.4", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00",
    "Package: a\nStatus: install ok installed\nVersion: ", "#packages deb", "# <xCAT data object stanza file>\n",
]  # fmt: skip
text = some.lists(some.one_of(some.sampled_from(WORDS), some.text(max_size=8)), max_size=14).map("".join)
json_value = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | text,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def data(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def put(path: Path, value: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data(value))
    return path


def settled(read: Callable[[], object]) -> None:
    """It may be refused; then the words are there, and can be printed."""
    said = ""
    try:
        read()
    except AvsError as err:
        said = str(err)
    assert said.replace("\n", "").isprintable()


def _stanza_file(path: Path) -> None:
    for image in StanzaDefinitions(path, Path("/i"), Path("/t")).osimages().values():
        with contextlib.suppress(AvsError):
            image.check()
        with contextlib.suppress(AvsError):
            _ = image.version
        image.paths("pkglist")
        image.named_files()
        stanza.parse(image.stanza(), "again")


def _settings(path: Path) -> Settings:
    return overlay_settings(Settings(), sections(settings.read_ini(path)), str(path))


def _recipe(path: Path) -> None:
    put(path.parent / "custom/avs/images/p/recipe.conf", path.read_bytes().decode("utf-8", "surrogateescape"))
    recipe.load(OsImage("debian12-x86_64-netboot-p", {}), path.parent, Settings()).text()


def _record(path: Path) -> None:
    found = sets.read_record(path.parent)
    if found is not None:
        clock.local(found.date)


FILES: dict[str, Callable[[Path], object]] = {
    "stanza file": _stanza_file, "avs.conf": _settings, "recipe": _recipe, "record": _record, "journal": journal.read,
    "pkglist": lambda path: pkglist.read([path], {"X": "."}), "otherpkglist": lambda path: pkglist.read([path], {}, strip_directory=True),
    "exlist": lambda path: exlist.select(["a", "\udce9"], *exlist.read([path], {"X": "."})), "marker": lambda path: markers.load(StepResult, path),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files(kind: str, tmp_path: Path) -> None:
    @quick
    @given(text)
    def check(value: str) -> None:
        settled(lambda: FILES[kind](put(tmp_path / sets.RECORD, value)))

    check()


def _manifest(value: str) -> None:
    found = manifest.load(value, "it")
    manifest.dump(found)
    differences.of_manifests(found, {})


def _packages(value: str) -> None:
    for found in (packages.parse_status(value), packages.load(value, "it")):
        packages.compare(found, [], "deb")


TEXTS: dict[str, Callable[[str], object]] = {
    "stanza": lambda value: stanza.parse(value, "it"), "lsdef": tables.parse, "lsdef -c": tables.parse_compact, "manifest": _manifest,
    "packages": _packages, "tag": check_tag_name, "osvers": OsVersion.parse, "documents": lambda value: answers.documents(data(value), "it"),
    "date": clock.local, "deb version": packages.deb_key, "rpm version": packages.rpm_key,
    "rpms": lambda value: list(packages._rpms(value)), "osvers of a site": lambda value: OsVersion.parse(value, (("*", "el"),)),
    "capabilities": lambda value: rights.capabilities(data(value)), "lsdef with its header": lambda value: tables.parse(tables.HEADER + value),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(kind: str) -> None:
    @quick
    @given(text)
    def check(value: str) -> None:
        settled(lambda: TEXTS[kind](value))

    check()


def _with_end(lines: Sequence[str]) -> str:
    """A manifest of these lines whose checksum is right."""
    whole = "".join(f"{line}\n" for line in (manifest.HEADER, *lines))
    return f"{whole}{manifest.END} {len(lines)} {hashlib.sha256(whole.encode('ascii', 'replace')).hexdigest()}\n"


@pytest.mark.parametrize(
    "bad",
    [f"time={LONG}.000000000", "time=9223372036854775808.000000000", "mode=-755", "mode=17777", "uid=-1", "uid=4294967296", f"size={LONG}",
     "size=-1", "device=native,-1,0", "device=native,1", "xattr.a=!", "link=\\777", "hardlink=x", "time=1", "type=door"],
)  # fmt: skip
def test_records_of_a_manifest_that_no_system_call_takes(bad: str) -> None:
    fields = {"type": "file", "mode": "0644", "uid": "0", "gid": "0", "time": "1.000000000"}
    name, _, value = bad.partition("=")
    line = " ".join(["./a", *(f"{key}={item}" for key, item in {**fields, name: value}.items())])
    if bad == "hardlink=x":
        settled(lambda: manifest.load(_with_end([line]), "it"))
        return
    with pytest.raises(AvsError, match="it, line 2: not "):
        manifest.load(_with_end([line]), "it")


def test_manifests_whose_checksum_is_right() -> None:
    keys = [
        "type=",
        "mode=",
        "uid=",
        "gid=",
        "time=",
        "size=",
        "link=",
        "device=native,",
        "hardlink=./",
        "xattr.a=",
        "sparse=",
        "./",
        " ",
        "\\",
    ]
    values = ["file", "dir", "link", "0644", "0", "1.000000000", "1", "..", "a/b", "\\057", "\\777", "QQ=="]
    line = some.lists(some.sampled_from([*keys, *values, *(" " + key for key in keys), LONG]), max_size=20).map("".join)

    @quick
    @given(some.lists(line, max_size=3))
    def check(lines: list[str]) -> None:
        settled(lambda: manifest.load(_with_end(lines), "it"))

    check()


def _fields(kind: type) -> list[str]:
    return list(kind.__dataclass_fields__)  # type: ignore[attr-defined]


def _good(kind: type) -> dict[str, Any]:
    plain = {"str": "x", "int": 1, "float": 1.0}
    return {name: plain.get(field.type, {}) for name, field in kind.__dataclass_fields__.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [PackedSet, JournalEntry, StepResult])
def test_records_with_values_of_another_kind(kind: type, tmp_path: Path) -> None:
    """What is read has the types that it says, or is not read at all."""
    read: dict[type, Callable[[Path], Any]] = {
        PackedSet: lambda path: sets.read_record(path.parent), JournalEntry: lambda path: next(iter(journal.read(path)), None),
        StepResult: lambda path: markers.load(StepResult, path),
    }  # fmt: skip
    path = tmp_path / sets.RECORD
    good = read[kind](put(path, json.dumps(_good(kind))))
    assert good == kind(**_good(kind))

    @quick
    @given(some.sampled_from(_fields(kind)), json_value)
    def check(name: str, value: object) -> None:
        found = read[kind](put(path, json.dumps({**_good(kind), name: value})))
        if found is not None:
            assert isinstance(value, type(getattr(good, name))) or name == "seconds"

    check()


def test_the_calendar_has_an_end() -> None:
    for date in (
        "10000-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "yesterday",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
    ):
        assert clock.local(date)


def test_packages_by_numbers_of_any_length() -> None:
    for key in (packages.rpm_key, packages.deb_key):
        ordered = ["1.9", "1.10", "1." + "9" * 4999, "1." + LONG, "1.1" + LONG]
        assert sorted({*ordered}, key=functools.partial(key)) == ordered
        assert key("1.010") == key("1.10")
