"""Names of osimages, versions and tags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage, check_tag_name, resolve, same_trunk
from xcat_avs.definitions.osvers import OsVersion
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.settings import overlay_settings, sections


def image(name: str, **attributes: str) -> OsImage:
    return OsImage(name, attributes, "osimages.stanza, line 1")


@pytest.mark.parametrize(
    ("osvers", "distribution", "family", "major", "minor", "chain"),
    [
        ("SL6.3", "sl", "el", "6", "3", ("el", "el6", "SL6.3")),
        ("rocky9.4", "rocky", "el", "9", "4", ("el", "el9", "rocky9.4")),
        ("rhels8.10.0", "rhels", "el", "8", "10.0", ("el", "el8", "rhels8.10.0")),
        ("alma9", "alma", "el", "9", "", ("el", "el9", "alma9")),
        ("centos-stream9", "centos-stream", "el", "9", "", ("el", "el9", "centos-stream9")),
        ("fedora40", "fedora", "fedora", "40", "", ("fedora", "fedora40")),
        ("debian12", "debian", "debian", "12", "", ("debian", "debian12")),
        ("debian12.7", "debian", "debian", "12", "7", ("debian", "debian12", "debian12.7")),
        ("ubuntu24.04", "ubuntu", "ubuntu", "24", "04", ("debian", "ubuntu", "ubuntu24", "ubuntu24.04")),
        (
            "ubuntu24.04.1", "ubuntu", "ubuntu", "24", "04.1",
            ("debian", "ubuntu", "ubuntu24", "ubuntu24.04", "ubuntu24.04.1"),
        ),
        ("sles15.5", "sles", "sles", "15", "5", ("sles", "sles15", "sles15.5")),
        ("sles15", "sles", "sles", "15", "", ("sles", "sles15")),
        ("rhels9.4", "rhels", "el", "9", "4", ("el", "el9", "rhels9.4")),
        ("rhels5.11", "rhels", "el", "5", "11", ("el", "el5", "rhels5.11")),
        ("rhelhpc6.5", "rhelhpc", "el", "6", "5", ("el", "el6", "rhelhpc6.5")),
        ("alma10.0", "alma", "el", "10", "0", ("el", "el10", "alma10.0")),
        ("almalinux9.5", "almalinux", "el", "9", "5", ("el", "el9", "almalinux9.5")),
        ("centos7", "centos", "el", "7", "", ("el", "el7", "centos7")),
        ("centos_stream9", "centos-stream", "el", "9", "", ("el", "el9", "centos_stream9")),
        ("ol9.3", "ol", "el", "9", "3", ("el", "el9", "ol9.3")),
        ("el9", "el", "el", "9", "", ("el", "el9")),
        ("rhels7.5-alternate", "rhels", "el", "7", "5", ("el", "el7", "rhels7.5-alternate")),
        ("rhels7.4-snap6", "rhels", "el", "7", "4", ("el", "el7", "rhels7.4-snap6")),
        ("rhels8.4custom", "rhels", "el", "8", "4", ("el", "el8", "rhels8.4custom")),
        ("centos-stream9-20240101", "centos-stream", "el", "9", "", ("el", "el9", "centos-stream9-20240101")),
        ("centos74", "centos", "el", "7", "4", ("el", "el7", "centos74")),
        ("centos610", "centos", "el", "6", "10", ("el", "el6", "centos610")),
        ("rhels10", "rhels", "el", "10", "", ("el", "el10", "rhels10")),
        ("sles12sp5", "sles", "sles", "12", "5", ("sles", "sles12", "sles12sp5")),
        ("SLES15-SP4", "sles", "sles", "15", "4", ("sles", "sles15", "SLES15-SP4")),
        ("sles154", "sles", "sles", "15", "4", ("sles", "sles15", "sles154")),
        ("leap15.6", "leap", "sles", "15", "6", ("sles", "sles15", "leap15.6")),
        ("opensuse-leap15.6", "opensuse-leap", "sles", "15", "6", ("sles", "sles15", "opensuse-leap15.6")),
        ("ubuntu2204", "ubuntu", "ubuntu", "22", "04", ("debian", "ubuntu", "ubuntu22", "ubuntu22.04", "ubuntu2204")),
        ("rhels9.0.0", "rhels", "el", "9", "0.0", ("el", "el9", "rhels9.0.0")),
        ("fedora41", "fedora", "fedora", "41", "", ("fedora", "fedora41")),
    ],
)  # fmt: skip
def test_version(osvers: str, distribution: str, family: str, major: str, minor: str, chain: tuple[str, ...]) -> None:
    version = OsVersion.parse(osvers)
    assert (version.name, version.distribution, version.family) == (osvers, distribution, family)
    assert (version.major, version.minor) == (major, minor)
    assert version.chain == chain
    assert version.packages == ("deb" if family in ("debian", "ubuntu") else "rpm")


@pytest.mark.parametrize(
    "osvers", ["", "12", "debian", "plan9", "debian12 ", "debian-", "rocky9.", "../debian12", "ro cky9"]
)
def test_version_of_no_known_distribution(osvers: str) -> None:
    with pytest.raises(AvsError, match="osvers") as caught:
        OsVersion.parse(osvers)
    assert repr(osvers) in str(caught.value)
    assert "rocky" in str(caught.value)


NAMES = (
    ("mylinux9", "rocky9.4"),
    ("mylinux*", "el"),
    ("mylinuxd*", "debian"),
    ("tux", "ubuntu24.04.1"),
    ("plain", "el"),
)


@pytest.mark.parametrize(
    ("osvers", "distribution", "major", "minor", "chain"),
    [
        ("mylinux9", "rocky", "9", "4", ("el", "el9", "rocky9.4", "mylinux9")),
        ("mylinux8.2", "el", "8", "2", ("el", "el8", "mylinux8.2")),
        ("mylinux-ng8.2", "el", "8", "2", ("el", "el8", "mylinux-ng8.2")),
        ("mylinuxd12", "debian", "12", "", ("debian", "debian12", "mylinuxd12")),
        ("mylinux8.2-snap6", "el", "8", "2", ("el", "el8", "mylinux8.2-snap6")),
        ("mylinux4u8.2", "el", "8", "2", ("el", "el8", "mylinux4u8.2")),
        ("tux", "ubuntu", "24", "04.1", ("debian", "ubuntu", "ubuntu24", "ubuntu24.04", "ubuntu24.04.1", "tux")),
        ("rocky9.4", "rocky", "9", "4", ("el", "el9", "rocky9.4")),
    ],
)
def test_version_that_a_site_names(
    osvers: str, distribution: str, major: str, minor: str, chain: tuple[str, ...]
) -> None:
    version = OsVersion.parse(osvers, NAMES)
    assert (version.name, version.distribution, version.chain) == (osvers, distribution, chain)
    assert (version.major, version.minor) == (major, minor)
    image = OsImage(f"{osvers}-x86_64-netboot-p", {}, os_names=NAMES)
    assert image.version == version


def test_an_error_names_the_image_once() -> None:
    """Whoever hands an error on puts the name before it, and some of them hand on what another one has named."""
    error = AvsError("an-image: no such thing", ["tail"], "log")
    assert str(error.prefixed("an-image: ")) == str(error)
    assert str(error.prefixed("other: ", "; nothing was done")).startswith(
        "other: an-image: no such thing; nothing was done\n"
    )


def test_a_family_says_nothing_of_the_release() -> None:
    with pytest.raises(AvsError, match=r"'plain' does not end with a release number.*family el.*rocky9\.4"):
        OsVersion.parse("plain", NAMES)


@pytest.mark.parametrize(
    "osvers",
    ["mylinux9.2", "plan9", "debian", "12", "mylinux7.5-alternate", "my_linux-ng8.1sp2", "tux4u9", "rocky9.", "9.4x"],
)
def test_the_advice_of_the_error_works(osvers: str, tmp_path: Path) -> None:
    """Each line that it quotes, put into [osvers] of avs.conf, makes the osvers known."""
    with pytest.raises(AvsError, match=r"\[osvers\] of avs\.conf") as caught:
        OsVersion.parse(osvers)
    advice = re.findall("`([^`]+)`", str(caught.value))
    assert advice[0] == f"{osvers} = rocky9.4"
    assert len(advice) == (2 if osvers in ("mylinux9.2", "plan9", "my_linux-ng8.1sp2", "tux4u9") else 1)
    for line in advice:
        (tmp_path / "avs.conf").write_text(f"[osvers]\n{line}\n", encoding="utf-8")
        found = overlay_settings(settings.Settings(), sections(settings.read_ini(tmp_path / "avs.conf")), "avs.conf")
        assert OsVersion.parse(osvers, found.os_names).family == "el"


def test_version_error_names_the_image() -> None:
    with pytest.raises(AvsError, match=r"^baredistro: osvers 'plan9'"):
        _ = image("baredistro", osvers="plan9").version


@pytest.mark.parametrize(
    ("name", "osvers", "osarch", "profile"),
    [
        ("SL6.3-x86_64-netboot-example.prod", "SL6.3", "x86_64", "example.prod"),
        ("centos-stream9-aarch64-netboot-a-b.c-d", "centos-stream9", "aarch64", "a-b.c-d"),
        ("rocky9.4-ppc64le-statelite-x", "rocky9.4", "ppc64le", "x"),
        ("debian12-x86_64-netboot-x86_64-netboot-y", "debian12", "x86_64", "x86_64-netboot-y"),
        ("debian12-x86-netboot-small", "debian12", "x86", "small"),
    ],
)
def test_attributes_come_from_the_name(name: str, osvers: str, osarch: str, profile: str) -> None:
    found = image(name, provmethod="netboot")
    assert (found.osvers, found.osarch, found.profile) == (osvers, osarch, profile)
    assert found.store_path == f"netboot/{osvers}/{osarch}/{profile}"
    assert found.check() is found


def test_attributes_win_over_the_name() -> None:
    found = image("debian12-x86_64-netboot-a", osvers="debian13", osarch="aarch64", profile="b")
    assert found.store_path == "netboot/debian13/aarch64/b"


def test_rootimgdir() -> None:
    install = Path("/srv/install")
    assert image("x", rootimgdir="/a/b").rootimgdir(install) == Path("/a/b")
    unset = image("debian12-x86_64-netboot-p")
    assert unset.rootimgdir(install) == install / "netboot/debian12/x86_64/p"


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"osvers": "debian12", "osarch": "x86_64"}, "no profile"),
        ({"osvers": "debian12", "profile": "p"}, "no osarch"),
        ({"osarch": "x86_64", "profile": "p"}, "no osvers"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "../p"}, "profile '../p'"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "."}, "profile '.'"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "a b"}, "profile 'a b'"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "a\nb"}, "profile"),
        ({"osvers": "debian12;id", "osarch": "x86_64", "profile": "p"}, "osvers 'debian12;id'"),
        ({"osvers": "debian12", "osarch": "../..", "profile": "p"}, "osarch '../..'"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "p", "rootimgdir": "rel/ative"}, "rootimgdir"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "p", "rootimgdir": "/a b"}, "rootimgdir"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "p", "rootimgdir": "/a;b"}, "rootimgdir"),
        ({"osvers": "debian12", "osarch": "x86_64", "profile": "p", "provmethod": "install"}, "provmethod install"),
    ],
)
def test_check_refuses(attributes: dict[str, str], word: str) -> None:
    with pytest.raises(AvsError) as caught:
        image("custom", **attributes).check()
    assert word in str(caught.value)
    assert "custom" in str(caught.value)


@pytest.mark.parametrize("rootimgdir", ["/", "//", "/a/../b", "/install/netboot/..", "/install/./p"])
def test_check_refuses_a_rootimgdir_that_is_no_plain_path(rootimgdir: str) -> None:
    """Publishing renames PROFILE below its parent: `..` or `/` would be another directory than it says."""
    with pytest.raises(AvsError, match="rootimgdir"):
        image("debian12-x86_64-netboot-p", rootimgdir=rootimgdir).check()


@pytest.mark.parametrize("name", ["a b", "a/b", "-a", ".", "a;b", "a$b", "käse"])
def test_check_refuses_a_name_that_is_not_plain(name: str) -> None:
    with pytest.raises(AvsError, match="osimage name"):
        image(name, osvers="debian12", osarch="x86_64", profile="p").check()


def test_stanza_keeps_every_attribute() -> None:
    found = image("p", zeta="1", alpha="a=b  c", objtype="osimage")
    assert found.stanza() == "p:\n    objtype=osimage\n    alpha=a=b  c\n    zeta=1\n"


def test_paths_and_named_files(tmp_path: Path) -> None:
    for name in ("one", "two", "post"):
        (tmp_path / name).write_text(name)
    found = image(
        "p", pkglist=f"{tmp_path}/one, {tmp_path}/two ,", postinstall=f"{tmp_path}/post -x arg", pkgdir=str(tmp_path / "one"),
        synclists=f"{tmp_path}/missing", rootimgdir=str(tmp_path), profile="post",
    )  # fmt: skip
    assert found.paths("pkglist") == (tmp_path / "one", tmp_path / "two")
    assert found.paths("exlist") == ()
    assert found.named_files() == {
        tmp_path / "one": "pkglist",
        tmp_path / "two": "pkglist",
        tmp_path / "post": "postinstall",
    }


BAD_TAGS = [
    "", "a/b", "a@b", "a:b", "-x", ".x", "..", "a b", "a\tb", "a\nb", "a\x01b", "a\x7fb", "a\u00a0b", "a\u200bb", "a\\b", "a%b",
    "a#b", "a?b", "a*b", "a[b", "a{b", "a(b", "a<b", "a>b", "a|b", "a&b", "a;b", "a$b", "a!b", "a~b", "a^b", "a`b", "a'b",
    'a"b', "x" * 201, "ü" * 101, "a\udcffb",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_TAGS, ids=ascii)
def test_bad_tag_names(name: str) -> None:
    with pytest.raises(AvsError, match="tag name") as caught:
        check_tag_name(name)
    str(caught.value).encode("utf-8")  # or it could not be shown


@pytest.mark.parametrize(
    "name", ["2026-01-02-03-04-05-debian12-by-root", "v1.10", "a", "x" * 200, "ü" * 100, "_a", "a+b,c", "1.0.", "a-"]
)
def test_good_tag_names(name: str) -> None:
    assert check_tag_name(name) == name


@pytest.mark.parametrize("name", ["=x", "=-x", "=v1"])
def test_a_tag_name_does_not_begin_with_what_a_shell_user_meant_as_an_assignment(name: str) -> None:
    """`-t=v1` reaches us as `=v1`: a tag of that name can never be taken back."""
    with pytest.raises(AvsError, match="tag name"):
        check_tag_name(name)


def definitions(*names: str, **attributes: str) -> dict[str, OsImage]:
    return {name: image(name, **({"provmethod": "netboot"} | attributes)) for name in names}


PROD, TEST = "debian12-x86_64-netboot-example.prod", "debian12-x86_64-netboot-example.test"
ARM = "debian12-aarch64-netboot-example.prod"
OTHER = "debian13-x86_64-netboot-example.prod"


def test_resolve_by_profile_and_by_name() -> None:
    images = definitions(PROD, TEST)
    assert resolve(images, "example.prod").name == PROD
    assert resolve(images, TEST).name == TEST


def test_resolve_narrows() -> None:
    images = definitions(PROD, ARM, OTHER)
    assert resolve(images, "example.prod", "debian12", "aarch64").name == ARM
    assert resolve(images, "example.prod", osvers="debian13").name == OTHER


def test_resolve_is_never_a_guess() -> None:
    images = definitions(PROD, ARM, OTHER)
    with pytest.raises(AvsError, match="means 3 osimages") as caught:
        resolve(images, "example.prod")
    lines = str(caught.value).split("\n")[1:]
    assert [line.split()[-1] for line in lines] == sorted([PROD, ARM, OTHER])
    assert "-o debian13 -a x86_64" in str(caught.value)
    with pytest.raises(AvsError, match="means 2 osimages"):
        resolve(images, "example.prod", osvers="debian12")


def test_resolve_names_the_nearest() -> None:
    images = definitions(PROD, TEST)
    with pytest.raises(NotFoundError, match=r"did you mean example\.prod"):
        resolve(images, "exmple.prod")
    with pytest.raises(NotFoundError, match=r"no osimage 'zzz' among 2 definitions$"):
        resolve(images, "zzz")
    with pytest.raises(NotFoundError, match=f"with osvers debian99 among 2 definitions; there is {PROD}"):
        resolve(images, "example.prod", osvers="debian99")
    with pytest.raises(NotFoundError, match="with osarch ppc64le"):
        resolve(images, PROD, osarch="ppc64le")


@pytest.mark.parametrize(
    "wanted", ["", "example", "example.", "example?prod", ".*", "EXAMPLE.PROD", "netboot-example.prod"]
)
def test_resolve_takes_no_part_of_a_name(wanted: str) -> None:
    with pytest.raises(NotFoundError):
        resolve(definitions(PROD, TEST), wanted)


def test_resolve_profile_passes_over_install_images() -> None:
    images = {
        **definitions("rocky9.4-x86_64-install-compute", provmethod="install"),
        **definitions("rocky9.4-x86_64-netboot-compute"),
    }
    assert resolve(images, "compute").name == "rocky9.4-x86_64-netboot-compute"
    with pytest.raises(AvsError, match="provmethod install"):
        resolve(images, "rocky9.4-x86_64-install-compute")


def test_resolve_lists_what_tells_apart_images_of_the_same_version() -> None:
    """-o and -a cannot tell these apart, so the full names must be in the list."""
    attributes = {"osvers": "rocky9.4", "osarch": "x86_64", "profile": "compute"}
    images = definitions("one", "two", **attributes)
    with pytest.raises(AvsError) as caught:
        resolve(images, "compute", "rocky9.4", "x86_64")
    assert [line.split()[-1] for line in str(caught.value).split("\n")[1:]] == ["one", "two"]
    assert resolve(images, "two").name == "two"


def test_osimages_that_would_share_a_trunk() -> None:
    """The three that copycds makes of one profile are not two: only the netboot one is stored."""
    same = {"osvers": "rhels7.5", "osarch": "ppc64le", "profile": "compute"}
    images = {
        name: image(name, **same, provmethod=provmethod)
        for name, provmethod in (("n", "netboot"), ("s", "statelite"), ("i", "install"))
    }
    assert same_trunk(images, images["n"]) == []
    assert [other.name for other in same_trunk(images, images["s"])] == ["n"], "asked for by its full name"
    images["m"] = image("m", **same)
    images["rhels7.5-ppc64le-netboot-compute"] = image("rhels7.5-ppc64le-netboot-compute")
    images["other"] = image("other", **{**same, "osarch": "x86_64"}, provmethod="netboot")
    assert [other.name for other in same_trunk(images, images["n"])] == ["m", "rhels7.5-ppc64le-netboot-compute"]


@pytest.mark.parametrize("value", ["/install/netboot/p/", "//install//netboot/p", "/install/netboot///p//"])
def test_rootimgdir_as_shells_and_scripts_write_it(value: str) -> None:
    found = image("debian12-x86_64-netboot-p", rootimgdir=value)
    assert str(found.check().rootimgdir(Path("/else"))) == "/install/netboot/p"
