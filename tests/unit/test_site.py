"""One installation: who asks, which settings, which definitions, which store."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import others
import pytest

from xcat_avs.errors import AvsError
from xcat_avs.identity import Identity
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.system.progress import Progress

TOP = Path(__file__).resolve().parents[2]
STANZA = """
debian12-x86_64-netboot-example.prod:
    objtype=osimage
    provmethod=netboot

debian12-x86_64-netboot-example.test:
    objtype=osimage
    provmethod=netboot
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images.stanza").write_text(STANZA)
    path = tmp_path / "avs.conf"
    path.write_text(
        f"[xcat]\nuse = no\ndefinitions = {tmp_path}/images.stanza\n[paths]\nstate = {tmp_path}/state\nlogs = {tmp_path}/logs\n"
        f"store = file://{tmp_path}/repo\ninstalldir = {tmp_path}/install\n"
    )
    monkeypatch.setenv("AVS_CONF", str(path))
    monkeypatch.delenv("SUDO_USER", raising=False)
    return path


def open_site(request: Request) -> Site:
    return Site.open(request, Progress(io.StringIO()))


@pytest.mark.usefixtures("conf")
def test_the_store_and_another_one(tmp_path: Path) -> None:
    site = open_site(Request())
    image = site.image(Request(image="example.prod"))
    assert site.store(recognize=False).url(image) == f"file://{tmp_path}/repo/netboot/debian12/x86_64/example.prod"
    other = open_site(Request(store="svn://host.example/r/"))
    assert other.store(recognize=False).url(image) == "svn://host.example/r/netboot/debian12/x86_64/example.prod"
    assert other.settings.state == site.settings.state


@pytest.mark.usefixtures("conf")
def test_the_image_by_name_or_by_the_old_way() -> None:
    site = open_site(Request())
    assert site.image(Request(image="example.prod")) == site.image(Request(profile="example.prod"))
    assert site.definitions.tftpdir == Path("/tftpboot")


@pytest.mark.usefixtures("conf")
def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    site = open_site(Request(user="alice"))
    image = site.image(Request(image="example.prod"))
    other = site.image(Request(image="example.test"))
    with site.lock(image, "build"):
        being = rf"example.prod is being built by alice \(process {os.getpid()} on .*, since 20"
        with pytest.raises(AvsError, match=being), site.lock(image, "build"):
            pytest.fail("locked twice")
        with site.lock(other, "build"), site.lock(image, "pack"):
            pass
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_no_definitions(conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conf.write_text("[xcat]\nuse = auto\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("XCATROOT", str(tmp_path))
    with pytest.raises(AvsError, match=r"definitions is not set in avs\.conf"):
        open_site(Request())


@pytest.mark.parametrize("use", ["auto", "yes"])
def test_an_xcat_that_cannot_be_used_is_no_silent_fall_back(
    conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/lsdef").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin/lsdef").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    conf.write_text(conf.read_text().replace("use = no", f"use = {use}"))
    with pytest.raises(AvsError):
        open_site(Request()).definitions.osimages()


def test_identity_names_the_person_and_records_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "bob")
    assert Identity.of("").user == "bob"
    alice = Identity.of("alice")
    assert (alice.user, alice.uid, alice.sudo_user) == ("alice", os.getuid(), "bob")
    assert alice.real() == f"uid {os.getuid()} on {alice.host}, through sudo from bob"
    monkeypatch.delenv("SUDO_USER")
    assert Identity.of("").user == "root"
    assert Identity.of("").real() == f"uid {os.getuid()} on {alice.host}"


@pytest.mark.parametrize("user", ["a b", "a/b", "a@b", "a:b", "a;b", "a\tb", "a\x1bb", "a\nb", "\u00a0"])
def test_users_that_are_refused(user: str) -> None:
    with pytest.raises(AvsError, match="user name"):
        Identity.of(user)


@pytest.mark.parametrize("user", ["alice", "o.neil-2", "müller"])
def test_users_that_are_taken(user: str) -> None:
    assert Identity.of(user).user == user


def test_a_uid_that_has_no_name() -> None:
    """In a container, or where the directory service is down, a uid may have no name; that is no defect of ours."""
    code = "from xcat_avs.site import Identity; i = Identity.of(''); print(i.user, i.uid)"
    argv = [*others.by_uid(54321), sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=TOP, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "uid54321 54321\n"


def test_names_of_distributions_reach_every_osimage(conf: Path, tmp_path: Path) -> None:
    """Also those in the file that is found below INSTALLDIR, which the definitions tell."""
    name = "mylinux9.2-x86_64-netboot-compute"
    (tmp_path / "images.stanza").write_text(f"{name}:\n    objtype=osimage\n    provmethod=netboot\n")
    site = open_site(Request())
    with pytest.raises(AvsError, match=r"mylinux9\.2.*mylinux\* = el"):
        _ = site.image(Request(image="compute")).version
    conf.write_text(conf.read_text() + "[osvers]\nmylinux* = el\n")
    site = open_site(Request())
    assert site.image(Request(image="compute")).version.chain == ("el", "el9", "mylinux9.2")
    assert site.definitions.osimages()[name].version.family == "el"
    assert not site.definitions.xcat
    assert site.definitions.describe().startswith(str(tmp_path))


def test_names_of_distributions_below_installdir(conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images.stanza").write_text("tux-x86_64-netboot-p:\n    objtype=osimage\n")
    monkeypatch.setattr("xcat_avs.settings.ETC_CONF", conf)
    monkeypatch.delenv("AVS_CONF")
    own = tmp_path / "install/custom/avs/avs.conf"
    own.parent.mkdir(parents=True)
    own.write_text("[osvers]\ntux = debian12.5\n")
    assert open_site(Request()).image(Request(image="p")).version.chain == ("debian", "debian12", "debian12.5", "tux")


@pytest.mark.usefixtures("conf")
def test_two_osimages_with_one_trunk(tmp_path: Path) -> None:
    same = "\n".join(
        ["twin:", "    objtype=osimage", "    osvers=debian12", "    osarch=x86_64", "    profile=example.prod", ""]
    )
    (tmp_path / "images.stanza").write_text(STANZA + same)
    stream = io.StringIO()
    site = Site.open(Request(), Progress(stream))
    name = "debian12-x86_64-netboot-example.prod"
    for wanted, other in (("twin", name), (name, "twin")):
        stream.truncate(0)
        assert site.image(Request(image=wanted)).name == wanted
        assert (
            f"Warning: {wanted} has osvers debian12, osarch x86_64 and profile example.prod, and so has {other}"
            in stream.getvalue()
        )
        with pytest.raises(
            AvsError, match=rf"and so has {other}, .* profile of its own: profile=NAME in .*images\.stanza"
        ):
            site.own_image(Request(image=wanted))
    stream.truncate(0)
    assert site.own_image(Request(image="example.test")) == site.image(Request(image="example.test"))
    assert stream.getvalue() == ""
