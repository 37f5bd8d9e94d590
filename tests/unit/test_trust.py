"""What others than root may change is not acted on by root, however it is reached."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from xcat_avs import settings
from xcat_avs.definitions import exlist, pkglist
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.stanza import StanzaDefinitions
from xcat_avs.errors import AvsError
from xcat_avs.recipes import files
from xcat_avs.settings import Settings, load_settings
from xcat_avs.site.opening import DIRECTORIES
from xcat_avs.system import trust

STANZA = "debian12-x86_64-netboot-p:\n    objtype=osimage\n    pkglist={}\n"
OTHER = 12345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """TMP/a/b/file, and TMP/link that leads to it by two more links."""
    path = tmp_path / "a/b/file"
    path.parent.mkdir(parents=True)
    path.write_text("x\n")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/one").symlink_to("../links/two/b")
    (tmp_path / "links/two").symlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("links/one/file")
    return path


def test_what_root_alone_may_write(file: Path, tmp_path: Path) -> None:
    """Below /tmp as well, which is sticky."""
    trust.refuse(file)
    trust.refuse(tmp_path / "link")
    trust.refuse(tmp_path / "none/of/it")
    trust.refuse(tmp_path / "a/../a/b/./file")


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing waits for somebody to write into a pipe, and nobody is told to change the mode of a device."""
    os.mkfifo(tmp_path / "list", 0o600)
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, path in (("list", tmp_path / "list"), ("zero", Path("/dev/zero"))):
        with pytest.raises(AvsError, match=f"^{path} is no regular file"):
            trust.refuse(tmp_path / name)
        with pytest.raises(AvsError, match=f"^{path} is no regular file"):
            exlist.read([tmp_path / name], {})


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/file", "links"])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_write(file: Path, tmp_path: Path, name: str, mode: int) -> None:
    (tmp_path / name).chmod(mode)
    with pytest.raises(AvsError) as caught:
        trust.refuse(tmp_path / "link")
    path = tmp_path / name
    assert (
        str(caught.value)
        == f"{path} may be written by others than root (mode {mode:04o}), and root acts on it; chmod go-w {path}"
    )
    path.chmod(mode & ~0o022)  # as it says
    trust.refuse(tmp_path / "link")


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/file", "links", "links/two", "link"])
def test_what_belongs_to_another(file: Path, tmp_path: Path, name: str) -> None:
    os.chown(tmp_path / name, OTHER, 0, follow_symlinks=False)
    with pytest.raises(AvsError, match=rf"{tmp_path / name} belongs to uid {OTHER}, not to root \(mode ") as caught:
        trust.refuse(tmp_path / "link")
    words = str(caught.value).partition("; ")[2].split(" ")
    assert words[0] == "chown"
    os.chown(words[-1], 0, 0, follow_symlinks="-h" not in words)
    trust.refuse(tmp_path / "link")


def test_sticky_directories(file: Path, tmp_path: Path) -> None:
    """Others may put things there, and not take away what is root's."""
    file.parent.chmod(0o1777)
    trust.refuse(file)
    os.chown(file.parent, OTHER, 0)
    with pytest.raises(AvsError, match="belongs to uid"):
        trust.refuse(file)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(AvsError, match="too many links"):
        trust.refuse(tmp_path / "a/x")
    (tmp_path / "file").touch()
    with pytest.raises(AvsError, match="Not a directory"):
        trust.refuse(tmp_path / "file/x")


def test_who_is_not_root_is_not_held_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    trust.refuse(file)


def test_the_log_directory_of_ubuntu(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(trust, "EXEMPT", {file.parent})
    file.parent.chmod(0o775)
    trust.refuse(file)
    file.parent.chmod(0o777)
    with pytest.raises(AvsError, match="mode 0777"):
        trust.refuse(file)


def _settings(path: Path) -> object:
    path.write_text("[image]\ntimeout = 5\n")
    return load_settings()


def _stanza(path: Path) -> object:
    path.write_text(STANZA.format("/p"))
    return StanzaDefinitions(path, Path("/i"), Path("/t")).osimages()


def _stanzas(path: Path) -> object:
    return StanzaDefinitions(path.parent, Path("/i"), Path("/t")).osimages()


def _included(path: Path) -> object:
    top = path.parent.parent / "top"
    top.write_text(f"#INCLUDE:{path}#\n")
    return pkglist.read([top], {})


def _named(path: Path) -> None:
    settings.refuse_writable(OsImage("x", {"postinstall": f"{path} -x,/bin/true"}), Settings())


def _key(path: Path) -> None:
    settings.refuse_writable(OsImage("x", {}), Settings(module_signing_key=str(path)))


def _recipe(path: Path) -> object:
    own = path.parent / "custom/avs/images/p/recipe.conf"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("[recipe]\n")
    return files.recipe_files(OsImage("debian12-x86_64-netboot-p", {}), path.parent)


@pytest.mark.parametrize(
    "read",
    [
        _settings, _stanza, _stanzas, lambda path: pkglist.read([path], {}), lambda path: exlist.read([path], {}), _included, _named,
        _key, _recipe,
    ],
)  # fmt: skip
def test_everything_that_root_reads_is_held_to_it(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d/file.stanza"
    path.parent.mkdir()
    path.write_text(STANZA.format("/p") if read is _stanzas else "")
    monkeypatch.setenv("AVS_CONF", str(path))
    read(path)
    path.parent.chmod(0o777)
    with pytest.raises(AvsError, match=re.escape(f"{path.parent} may be written by others")):
        read(path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    top = tmp_path / "state"
    for name in DIRECTORIES:
        (top / name / "image/tree").mkdir(parents=True)
    (top / "locks/image.build").touch()
    trust.refuse_foreign(top, DIRECTORIES)
    return top


@pytest.mark.parametrize(
    "name", [*DIRECTORIES, "builds/other", "staging/other", "checkouts/image/tree", "builds/image/results"]
)
def test_no_link_in_the_state_leads_elsewhere(state: Path, name: str, tmp_path: Path) -> None:
    path = state / name
    if path.is_dir():
        path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AvsError, match=f"{path} is a link"):
        trust.refuse_foreign(state, DIRECTORIES)


@pytest.mark.parametrize("name", [".", "builds", "builds/image", "fsvs"])
def test_foreign_directories_in_the_state(state: Path, name: str) -> None:
    (state / name).chmod(0o770)
    with pytest.raises(AvsError, match="written by others"):
        trust.refuse_foreign(state, DIRECTORIES)
    (state / name).chmod(0o700)
    os.chown(state / name, OTHER, OTHER)
    with pytest.raises(AvsError, match=f"uid {OTHER}"):
        trust.refuse_foreign(state, DIRECTORIES)


def test_logs(tmp_path: Path) -> None:
    trust.refuse_foreign(tmp_path / "none")
    (tmp_path / "logs/image").mkdir(parents=True)
    (tmp_path / "logs/file").touch()
    trust.refuse_foreign(tmp_path / "logs")
    (tmp_path / "logs/other").symlink_to("/nowhere")
    with pytest.raises(AvsError, match="is a link"):
        trust.refuse_foreign(tmp_path / "logs")
