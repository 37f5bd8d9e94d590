"""Settings: types, layers, and clear words about what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xcat_avs import settings
from xcat_avs.errors import AvsError
from xcat_avs.settings import Settings, load_settings, load_site_settings, overlay_settings, sections, share_dir


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An avs.conf that AVS_CONF names."""
    path = tmp_path / "avs.conf"
    path.write_text("")
    monkeypatch.setenv("AVS_CONF", str(path))
    return path


def test_the_shipped_file_holds_every_setting_with_its_default() -> None:
    shipped = sections(settings.read_ini(share_dir() / "avs.conf"))
    assert {(section, name) for section, items in shipped.items() for name in items} == set(settings.FIELDS)
    assert overlay_settings(Settings(), shipped, "shipped") == Settings()


def test_every_setting_has_help() -> None:
    assert [field.name for field in dataclasses.fields(Settings) if not field.metadata["help"]] == []


def test_load_reads_only_avs_conf_where_it_is_set(conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    etc = tmp_path / "etc.conf"
    etc.write_text("[pack]\nmethod = tar\n")
    monkeypatch.setattr(settings, "ETC_CONF", etc)
    conf.write_text(
        "[pack]\ncompress = xz  # small\n[paths]\nstate = /srv/avs\n[image]\nrequire_message = on\ntimeout = 30\n"
    )
    found = load_settings()
    assert (found.method, found.compress) == ("auto", "xz")
    assert found.state == Path("/srv/avs")
    assert found.require_message is True
    assert found.timeout == 30


def test_load_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AVS_CONF", raising=False)
    etc, site = tmp_path / "etc.conf", tmp_path / "install/custom/avs/avs.conf"
    site.parent.mkdir(parents=True)
    monkeypatch.setattr(settings, "ETC_CONF", etc)
    etc.write_text(f"[paths]\ninstalldir = {tmp_path}/install\n[pack]\nmethod = tar\ncompress = xz\n")
    site.write_text("[pack]\ncompress = zstd\n")
    found = load_settings()
    assert (found.method, found.compress) == ("tar", "xz")
    found = load_site_settings(found, tmp_path / "install")
    assert (found.method, found.compress) == ("tar", "zstd")
    etc.unlink()
    assert load_site_settings(load_settings(), tmp_path / "install").compress == "zstd"
    assert load_site_settings(load_settings(), tmp_path / "elsewhere") == Settings()


def test_an_empty_avs_conf_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVS_CONF", "")
    monkeypatch.setattr(settings, "ETC_CONF", tmp_path / "none")
    assert load_site_settings(load_settings(), tmp_path) == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[pakc]\nmethod = tar\n", ["unknown section [pakc]", "did you mean pack", "there are"]),
        ("[DEFAULT]\nmethod = tar\n", ["unknown section [DEFAULT]"]),
        ("[pack]\nmethd = tar\n", ["unknown setting 'methd' in [pack]", "did you mean method"]),
        ("[image]\nmethod = tar\n", ["unknown setting 'method' in [image]", "it belongs in [pack]"]),
        ("[pack]\nMethod = tar\n", ["unknown setting 'Method'", "did you mean method"]),
        ("[pack]\nmethod = rar\n", ["[pack] method is 'rar'", "cpio, tar, squashfs"]),
        ("[pack]\nmethod =\n", ["[pack] method is ''"]),
        ("[xcat]\nuse = maybe\n", ["[xcat] use is 'maybe'", "auto, yes, no"]),
        ("[image]\nrequire_message = perhaps\n", ["require_message is 'perhaps'", "yes or no"]),
        ("[image]\ntimeout = soon\n", ["timeout is 'soon'", "whole number"]),
        ("[image]\ntimeout = -1\n", ["timeout is '-1'"]),
        ("[image]\ntimeout = ²\n", ["timeout is"]),
        ("[paths]\nstate = var/avs\n", ["state is 'var/avs'", "absolute path"]),
        ("[paths]\nstate =\n", ["state is ''", "absolute path"]),
        ("method = tar\n", ["is not an ini file", "line: 1"]),
        ("[pack]\nmethod\n", ["is not an ini file", "2"]),
        ("[pack]\nmethod = tar\nmethod = cpio\n", ["is not an ini file", "already exists"]),
        ("[image]\nkernel = 5.14;id\n", ["[image] kernel has '5.14;id'", "plain"]),
        ("[image]\nnet_modules = igb, $(id)\n", ["net_modules has '$(id)'"]),
        ("[image]\ninterface = -k\n", ["interface has '-k'"]),
        ("[image]\nroot_size = big\n", ["root_size has 'big'", "2g"]),
        ("[image]\npackage_manager_args = remove\n", ["package_manager_args has 'remove'", "begin with -"]),
        ("[image]\ninstall_locales = en:de\n", ["install_locales has 'en:de'"]),
        ("[image]\nmodule_signing_key = key.pem\n", ["module_signing_key is 'key.pem'", "absolute path"]),
        ("[osvers]\nmylinux9 = plan9\n", ["[osvers] mylinux9 is said to be like 'plan9'", "ubuntu", "rocky9.4"]),
        ("[osvers]\nmy*linux = el\n", ["[osvers] 'my*linux' is no osvers"]),
        ("[osvers]\n../x = el\n", ["[osvers] '../x' is no osvers"]),
        ("[pack]\n[pack]\n", ["is not an ini file", "already exists"]),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(conf: Path, text: str, words: list[str]) -> None:
    conf.write_text(text)
    with pytest.raises(AvsError) as caught:
        load_settings()
    for word in [str(conf), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["installdir", "tftpdir"])
def test_a_directory_must_be_absolute(conf: Path, setting: str) -> None:
    """A relative one would publish below whatever directory the command was typed in."""
    conf.write_text(f"[paths]\n{setting} = install\n")
    with pytest.raises(AvsError, match=f"{setting} is 'install'"):
        load_settings()


def test_settings_of_an_image(conf: Path) -> None:
    conf.write_text(
        "[image]\ninstall_docs = no\ninstall_locales = en, de_AT, sr@latin\nnet_modules = igb mlx5_core\nroot_size = 2g\n"
        "package_manager_args = --nobest --setopt=retries=3 -oAcquire::Retries=3\nkernel =\n"
    )
    found = load_settings()
    assert found.install_docs is False
    assert found.install_locales == ("en", "de_AT", "sr@latin")
    assert found.net_modules == ("igb", "mlx5_core")
    assert found.package_manager_args == ("--nobest", "--setopt=retries=3", "-oAcquire::Retries=3")
    assert (found.kernel, found.root_size) == ("", "2g")


def test_names_of_distributions_add_up(conf: Path) -> None:
    conf.write_text("[osvers]\nmylinux9 = rocky9.4\nmylinux* = el\n")
    names = load_settings().os_names
    assert names == (("mylinux9", "rocky9.4"), ("mylinux*", "el"))
    more = overlay_settings(load_settings(), {"osvers": {"mylinux9": "", "other*": "debian"}}, "a file")
    assert more.os_names == (("mylinux*", "el"), ("other*", "debian"))


def test_values_are_not_interpolated(conf: Path) -> None:
    conf.write_text("[xcat]\ndefinitions = /a/%(b)s/$HOME/100%\n")
    assert load_settings().definitions == "/a/%(b)s/$HOME/100%"


def test_a_hash_within_a_word_is_no_comment(conf: Path) -> None:
    conf.write_text("[xcat]\ndefinitions = /a#b # the rest\n")
    assert load_settings().definitions == "/a#b"


@pytest.mark.parametrize("kind", ["missing", "directory", "binary", "latin"])
def test_a_file_that_cannot_be_read(conf: Path, kind: str) -> None:
    conf.unlink()
    if kind == "directory":
        conf.mkdir()
    elif kind == "binary":
        conf.write_bytes(bytes(range(256)))
    elif kind == "latin":
        conf.write_bytes(b"[pack]\n# Gr\xfc\xdfe\nmethod = tar\n")
    with pytest.raises(AvsError, match=str(conf)):
        load_settings()


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("yes", False, True), ("OFF", True, False), ("1", False, True), ("007", 0, 7), (" /a ", Path("/"), Path("/a")),
        ("a, b,,c\n d", (), ("a", "b", "c", "d")), ("", (), ()), ("  x y ", "", "x y"), ("a b", ["x"], ("a", "b")),
    ],
)  # fmt: skip
def test_typed(text: str, default: object, expected: object) -> None:
    found = settings.typed(text, default, "it")
    assert found == expected
    assert type(found) is type(expected)


def test_shipped_directory_is_beside_the_package() -> None:
    top = Path(__file__).resolve().parents[2]
    assert share_dir() == top / "share/xcat/avs"
