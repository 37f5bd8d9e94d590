"""Where the packages of a Debian or Ubuntu image come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import aptsources


def image(osvers: str = "debian12", osarch: str = "x86_64", **attributes: str) -> OsImage:
    return OsImage(f"{osvers}-{osarch}-netboot-p", attributes, "x.stanza, line 1")


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc/apt of our own."""
    directory = tmp_path / "apt"
    (directory / "sources.list.d").mkdir(parents=True)
    monkeypatch.setattr(aptsources, "ETC_APT", directory)
    return directory


@pytest.mark.parametrize(
    ("osvers", "suite"),
    [("debian11", "bullseye"), ("debian12", "bookworm"), ("debian12.7", "bookworm"), ("debian13", "trixie"),
     ("ubuntu22.04", "jammy"), ("ubuntu24.04", "noble"), ("ubuntu24.04.1", "noble")],
)  # fmt: skip
def test_codename(osvers: str, suite: str) -> None:
    assert aptsources.codename(image(osvers)) == suite


@pytest.mark.parametrize("osvers", ["debian99", "ubuntu24", "ubuntu24.10"])
def test_no_codename(osvers: str) -> None:
    with pytest.raises(AvsError, match=f"no suite is known for osvers {osvers}; known are"):
        aptsources.codename(image(osvers))


@pytest.mark.parametrize(
    ("osarch", "name"),
    [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("ppc64le", "ppc64el"),
        ("x86", "i386"),
        ("s390x", "s390x"),
        ("amd64", "amd64"),
    ],
)
def test_architecture(osarch: str, name: str) -> None:
    assert aptsources.architecture(image(osarch=osarch)) == name


def test_pkgdir_of_urls(apt: Path, tmp_path: Path) -> None:
    found = aptsources.sources(
        image(pkgdir="http://mirror.example/debian, http://mirror.example/security bookworm-security main contrib"),
        tmp_path,
    )
    assert found == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/security bookworm-security main contrib",
    ]
    assert aptsources.sources(image("ubuntu22.04", pkgdir="http://mirror.example/u"), tmp_path) == [
        "deb http://mirror.example/u jammy main universe"
    ]


def test_pkgdir_of_directories(tmp_path: Path) -> None:
    (tmp_path / "medium/dists/bookworm").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/Packages.gz").touch()
    found = aptsources.sources(image(pkgdir=f"{tmp_path}/medium,{tmp_path}/flat"), tmp_path)
    assert found == [
        f"deb [trusted=yes] copy:{tmp_path}/medium bookworm main",
        f"deb [trusted=yes] copy:{tmp_path}/flat ./",
    ]
    with pytest.raises(AvsError, match=f"pkgdir {tmp_path}/none is no Debian repository for bookworm"):
        aptsources.sources(image(pkgdir=f"{tmp_path}/none"), tmp_path)
    with pytest.raises(AvsError, match="is no Debian repository for trixie"):
        aptsources.sources(image("debian13", pkgdir=f"{tmp_path}/medium"), tmp_path)


def test_otherpkgdir_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/Packages").touch()
    found = aptsources.sources(
        image(pkgdir="http://mirror.example/debian", otherpkgdir=f"/install/post/otherpkgs,{tmp_path}/flat"), tmp_path
    )
    assert found[1:] == [f"deb [trusted=yes] copy:{tmp_path}/flat ./"]


def test_the_sources_of_the_machine(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list").write_text(
        "# deb http://old.example bookworm main\n"
        "deb http://mirror.example/debian bookworm main contrib  # ours\n"
        "  deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/security bookworm-security main\n"
        "deb http://mirror.example/flat ./\n"
    )
    (apt / "sources.list.d/more.list").write_text("deb http://more.example bookworm/ main\n")
    (apt / "sources.list.d/off.list.disabled").write_text("deb http://off.example bookworm main\n")
    assert aptsources.sources(image(), tmp_path) == [
        "deb http://mirror.example/debian bookworm main contrib",
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/security bookworm-security main",
        "deb http://more.example bookworm/ main",
    ]


def test_the_deb822_sources_of_the_machine(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list.d/debian.sources").write_text(
        "# the distribution\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates trixie\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n\n"
        "Types: deb\nURIs: http://mirror.example/trixie\nSuites: trixie\nComponents: main\n \n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb-src\nURIs: http://src.example\nSuites: bookworm\nComponents: main\n"
    )
    (path,) = aptsources.sources(image(), tmp_path)
    assert Path(path).parent == tmp_path
    assert Path(path).read_text() == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n"
    )


def test_suites_on_lines_of_their_own(apt: Path, tmp_path: Path) -> None:
    """deb822 lets a value go on in lines that begin with a blank."""
    (apt / "sources.list.d/debian.sources").write_text(
        "Types: deb\nURIs: http://mirror.example/debian\nSuites:\n bookworm\n trixie\nComponents: main\n"
    )
    (path,) = aptsources.sources(image(), tmp_path)
    assert "bookworm" in Path(path).read_text()
    assert "trixie" not in Path(path).read_text()


def test_no_sources(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list").write_text("deb http://mirror.example/debian trixie main\n")
    with pytest.raises(
        AvsError, match=r"this machine's apt has no source for bookworm; set pkgdir in x\.stanza, line 1"
    ):
        aptsources.sources(image(), tmp_path)


def test_a_suite_that_only_begins_alike(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list").write_text("deb http://mirror.example/debian bookwormy main\n")
    with pytest.raises(AvsError, match="no source for bookworm"):
        aptsources.sources(image(), tmp_path)


def test_network_settings() -> None:
    matches = aptsources.NETWORK_SETTING.fullmatch
    assert matches('Acquire::http::Proxy "http://proxy.example:3128";')
    assert matches('Acquire::https::Verify-Peer "false";')
    assert not matches('APT::Install-Recommends "0";')
    assert not matches('Acquire::httpfoo "x";')
