"""Generators: which one, what an image holds, and an existing tree as the base."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from xcat_avs import generate
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import InstallOptions, dnf, existing, genimage, mmdebstrap
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, packages, scan


def image(osvers: str, **attributes: str) -> OsImage:
    return OsImage(f"{osvers}-x86_64-netboot-p", attributes, "x.stanza, line 1")


@pytest.mark.parametrize(
    ("osvers", "name"),
    [
        ("debian12", "mmdebstrap"),
        ("ubuntu24.04", "mmdebstrap"),
        ("rocky9.4", "dnf"),
        ("alma8", "dnf"),
        ("fedora40", "dnf"),
        ("SL6.3", "rinse"),
        ("centos7", "rinse"),
        ("rhels5.11", "rinse"),
        ("el10", "dnf"),
    ],
)
def test_choose(osvers: str, name: str) -> None:
    assert generate.choose(image(osvers), "auto").name == name
    assert generate.choose(image(osvers), name).name == name


@pytest.mark.parametrize("osvers", ["centos4.9", "sles15.5"])
def test_no_generator(osvers: str) -> None:
    with pytest.raises(AvsError, match=f"no generator for osvers {osvers}"):
        generate.choose(image(osvers), "auto")


@pytest.mark.parametrize(
    ("osvers", "name"), [("debian12", "dnf"), ("rocky9.4", "mmdebstrap"), ("debian12", "rinse"), ("fedora41", "rinse")]
)
def test_a_generator_that_does_not_fit(osvers: str, name: str) -> None:
    with pytest.raises(AvsError, match=f"generator {name} cannot build osvers {osvers}"):
        generate.choose(image(osvers), name)


def test_a_name_of_the_site_gives_the_generator() -> None:
    named = OsImage("mylinux6-x86_64-netboot-p", {}, "x.stanza, line 1", os_names=(("mylinux*", "el"),))
    assert generate.choose(named, "auto").name == "rinse"


def test_install_options_are_part_of_what_a_build_is_made_of(tmp_path: Path) -> None:
    """A build that is resumed after one of them was changed begins anew; without any the id is as it ever was."""
    base = put(tmp_path / "base", "bash\n")
    several = [
        InstallOptions(),
        InstallOptions(docs=False),
        InstallOptions(locales=("en",)),
        InstallOptions(locales=("en", "de")),
        InstallOptions(arguments=("-oA=b",)),
    ]
    for osvers in ("debian12", "rocky9.4", "centos7"):
        found = [generate.choose(image(osvers), "auto", install_options).identity() for install_options in several]
        assert len(set(found)) == len(several), found
        assert found[0].strip() == generate.choose(image(osvers), "auto").name
    one = generate.choose(image("centos7"), "auto", InstallOptions(base=base)).identity()
    base.write_text("bash\nyum\n")
    assert generate.choose(image("centos7"), "auto", InstallOptions(base=base)).identity() != one


def test_install_options_in_the_words_of_dpkg() -> None:
    assert mmdebstrap.paths(InstallOptions()) == []
    assert all(
        "/usr/share/" in option for option in mmdebstrap.paths(InstallOptions(docs=False, locales=("en", "pt_BR")))
    )
    found = mmdebstrap.paths(InstallOptions(locales=("de",)))
    assert found.index("--path-exclude=/usr/share/locale/*/*") < found.index("--path-include=/usr/share/locale/de_*/*")
    both = mmdebstrap.paths(InstallOptions(docs=False, locales=("de",)))
    assert "--path-exclude=/usr/share/man/*/*" in both[len(found) :], "no manual pages, whatever their language"


LOG = """Setting up libc6:amd64 (2.36-9) ...
noise
Setting up needs-kernel (1.0) ...
cannot load module frob: no such device
dpkg: error processing package needs-kernel (--configure):
 installed needs-kernel package post-installation script subprocess returned error exit status 3
Setting up apt (2.6.2) ...
Processing triggers for libc-bin (2.36-9) ...
Errors were encountered while processing:
 needs-kernel
E: Sub-process env returned an error code (1)
"""


def test_the_package_that_dpkg_failed_on_and_what_its_script_said() -> None:
    packages, lines = mmdebstrap.broken(LOG)
    assert packages == ["needs-kernel"]
    assert lines == LOG.splitlines()[2:6]
    assert mmdebstrap.broken("Setting up apt (2.6.2) ...\nE: something else\n") == ([], [])


@pytest.mark.parametrize("before", ["nothing", "a link to run", "its own file"])
@pytest.mark.parametrize("installs", [False, True])
def test_a_resolver_that_is_lent(tmp_path: Path, before: str, installs: bool) -> None:
    """systemd-resolved makes a link of it, and puts what was there aside."""
    path, stub = tmp_path / "etc/resolv.conf", tmp_path / "run/systemd/resolve/stub-resolv.conf"
    path.parent.mkdir()
    (tmp_path / "run").mkdir()
    if before == "a link to run":
        path.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    elif before == "its own file":
        path.write_text("nameserver 192.0.2.1\n")
    host = Path("/etc/resolv.conf").read_bytes()
    with mmdebstrap.resolver(tmp_path):
        assert (path.read_bytes() == host) == (before != "its own file")
        if installs and before == "nothing":
            path.rename(tmp_path / "etc/.resolv.conf.systemd-resolved.bak")
            path.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert path.is_symlink() == (before == "a link to run" or (installs and before == "nothing"))
    assert (path.is_file()) == (before == "its own file")
    assert not stub.exists()
    assert [item.name for item in path.parent.iterdir() if item != path] == []


def test_install_options_in_the_words_of_rpm() -> None:
    assert (dnf.macros(InstallOptions()), dnf.flags(InstallOptions())) == ("", "")
    assert dnf.macros(InstallOptions(locales=("en", "de"))) == "%_install_langs en:de\n"
    assert dnf.flags(InstallOptions(docs=False)) == "tsflags=nodocs\n"


def test_options_of_genimage() -> None:
    assert genimage.options((), "", "", "") == ()
    found = genimage.options(("igb", "mlx5_core", "igb", "nfs"), "eth0", "5.14.0-1.el9.x86_64", "2g")
    assert found == ("-n", "igb,mlx5_core,nfs", "-i", "eth0", "-k", "5.14.0-1.el9.x86_64", "-l", "2g")
    for bad in ("a;b", "$(x)", "a b", "--dryrun", "`x`", "a|b", "a\nb", "'"):
        with pytest.raises(AvsError, match="shell"):
            genimage.options((), bad, "", "")
        with pytest.raises(AvsError, match="shell"):
            genimage.options((bad,), "", "", "")


def test_package_set(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one two\n-three\n#ENV:A=1#\n")
    (tmp_path / "b").write_text("sub/three\nsub/four\n-two\n#ENV:A=2#\n")
    found = generate.package_set(image("debian12", pkglist=str(tmp_path / "a"), otherpkglist=str(tmp_path / "b")))
    assert found.include == ("one", "four")
    assert set(found.exclude) == {"two", "three"}
    assert found.environment == {"A": "2"}
    with pytest.raises(AvsError, match=r"names no pkglist; set pkglist in x\.stanza, line 1"):
        generate.package_set(image("debian12"))
    with pytest.raises(AvsError, match=f"p: the definition names the package list {tmp_path}/none"):
        generate.package_set(image("debian12", pkglist=f"{tmp_path}/none"))


def test_the_lists_of_a_definition_with_what_they_include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As genimage resolves them; what it does not find hides none of the others."""
    monkeypatch.setenv("XCATROOT", str(tmp_path / "xcat"))
    texts = {
        "p": "#INCLUDE:none#\n#INCLUDE:${LISTS}/gpu#\n", "lists/gpu": "#INCLUDE:$XCATROOT/base#\n", "xcat/base": "bash\n",
        "o": "a\n", "e": "#INCLUDE:e2#  # common\n", "e2": "./usr*\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    attributes = {key: str(tmp_path / key[0]) for key in ("pkglist", "otherpkglist", "exlist")}
    image = OsImage("debian12-x86_64-netboot-x", {**attributes, "environvar": f"A=b, LISTS = {tmp_path}/lists,C"})
    files, problems = generate.lists(image)
    assert files == [tmp_path / name for name in ("p", "lists/gpu", "xcat/base", "o", "e", "e2")]
    assert problems == [f"{tmp_path}/p, line 1 names the package list {tmp_path}/none: No such file or directory"]
    assert generate.list_files(image) == files[:4]


def test_count_packages_of_dpkg(tmp_path: Path) -> None:
    assert packages.count_packages(tmp_path) == 0
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    states = ["install ok installed", "hold ok installed", "deinstall ok config-files", "install ok half-configured"]
    status.write_text(
        "".join(
            f"Package: p{number}\nStatus: {state}\nDescription: x\n Status: install ok installed\n\n"
            for number, state in enumerate(states)
        )
    )
    assert packages.count_packages(tmp_path) == 2


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory laid out like a rootimgdir."""
    top = tmp_path / "source"
    put(top / "rootimg/etc/hosts")
    put(top / "rootimg/-dash")
    put(top / "rootimg/with space")
    os.link(top / "rootimg/etc/hosts", top / "rootimg/hard")
    (top / "rootimg/link").symlink_to("/nowhere")
    os.mkfifo(top / "rootimg/fifo")
    os.setxattr(top / "rootimg/etc/hosts", "user.x", b"1")
    os.chown(top / "rootimg/-dash", 123, 456)
    put(top / "kernel")
    put(top / "initrd-stateless.gz")
    put(top / ".hidden")
    put(top / "rootimg.cpio.gz", "an archive")
    put(top / "rootimg.sfs", "an archive")
    put(top / "build_info/report")
    return top


def test_copy_tree_loses_nothing_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    before = scan.scan(str(source))
    target = tmp_path / "build/tree"
    put(target / "old/file")
    existing.copy_tree(source, target, Runner(tmp_path / "log"))
    assert manifest.compare(before, scan.scan(str(source)), times=True) == []
    found = scan.scan(str(target))
    wanted = {path: entry for path, entry in before.items() if not path.startswith(("rootimg.", "build_info"))}
    assert manifest.compare(wanted, found, times=True) == []
    assert os.getxattr(target / "rootimg/etc/hosts", "user.x") == b"1"
    assert (target / "rootimg/hard").stat().st_nlink == 2


def test_a_root_that_is_a_link_is_copied_and_not_built_in(source: Path, tmp_path: Path) -> None:
    """A link copied as a link would have the procedures change the tree that it leads to."""
    (source / "rootimg").rename(tmp_path / "real")
    (source / "rootimg").symlink_to(tmp_path / "real")
    try:
        existing.copy_tree(source, tmp_path / "build/tree", Runner(tmp_path / "log"))
    except AvsError:
        return  # refused: as good
    assert not (tmp_path / "build/tree/rootimg").is_symlink()
    assert (tmp_path / "build/tree/rootimg/etc/hosts").read_text() == "x"


def test_what_is_mounted_below_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "xcat_avs.system.mounts.mounts_below",
        lambda directory: [f"{directory}/proc"] if str(directory).endswith("source/rootimg") else [],
    )
    with pytest.raises(AvsError, match=f"mounted below {source}: {source}/rootimg/proc"):
        existing.copy_tree(source, tmp_path / "build/tree", Runner(tmp_path / "log"))


def test_count_packages_of_rpm(tmp_path: Path) -> None:
    """An image that has no rpm of its own is asked through the host's."""
    database = tmp_path / "var/lib/rpm"
    database.mkdir(parents=True)
    subprocess.run(["rpm", "--dbpath", str(database), "--initdb"], check=True, capture_output=True)
    assert generate.rpm_database(tmp_path) == "var/lib/rpm"
    assert packages.count_packages(tmp_path) == 0


@pytest.mark.parametrize("dracut", [False, True])
def test_a_setting_of_dracut_for_the_length_of_a_build(tmp_path: Path, dracut: bool) -> None:
    setting = tmp_path / "etc/dracut.conf.d/avs-reproducible.conf"
    with generate.reproducible_initrds(tmp_path):
        assert setting.read_text() == 'reproducible="yes"\n'
        if dracut:
            put(tmp_path / "usr/lib/dracut/dracut-functions.sh")
    assert [path.name for path in tmp_path.rglob("*")].count("dracut.conf.d") == dracut, "the package's directory stays"
    assert not setting.exists()


def test_a_setting_of_dracut_never_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/dracut.conf.d").symlink_to(tmp_path / "host")
    with generate.reproducible_initrds(tmp_path / "root"):
        assert list((tmp_path / "host").iterdir()) == []
    assert (tmp_path / "root/etc/dracut.conf.d").is_symlink()


def test_what_package_managers_note_of_their_runs_is_taken_out(tmp_path: Path) -> None:
    for name in ("dnf/history.sqlite", "dnf/history.sqlite-shm", "dnf/history.sqlite-wal", "dnf/repos/x/countme",
                 "yum/history/history-2026-01-01.sqlite", "yum/yumdb/b/bash/from_repo", "yum/uuid", "dnf/modules.d"):  # fmt: skip
        put(tmp_path / "var/lib" / name)
    put(tmp_path / "usr/lib/sysimage/libdnf5/transaction_history.sqlite-wal")
    dnf.settle(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "var/lib/dnf/modules.d"
    }


PACKED = b"root:$6$salt$hash:13880:0:99999:7:::\nbin:*:19000:0:99999:7:::\n"


@pytest.mark.parametrize(
    ("shadow", "info", "left", "said"),
    [
        (PACKED, "IMAGEUUID='1'\n", PACKED.replace(b"$6$salt$hash", b"*"), 3),
        (PACKED, "IMAGENAME='x'\n", PACKED, 0),  # as a pack of ours, or a site, writes it
        (PACKED, "", PACKED, 0),
        (PACKED.replace(b"13880", b"19000"), "IMAGEUUID='1'\n", PACKED.replace(b"13880", b"19000"), 2),
        (PACKED.replace(b"$6$salt$hash", b"*"), "IMAGEUUID='1'\n", PACKED.replace(b"$6$salt$hash", b"*"), 2),
    ],
)
def test_what_packimage_put_into_a_tree(tmp_path: Path, shadow: bytes, info: str, left: bytes, said: int) -> None:
    put(tmp_path / "etc/shadow").write_bytes(shadow)
    (tmp_path / "etc/shadow").chmod(0o600)
    put(tmp_path / "xcatpost/mypostscript")
    if info:
        put(tmp_path / "opt/xcat/xcatinfo", info)
    assert len(existing.strip_packimage(tmp_path)) == said
    assert (tmp_path / "etc/shadow").read_bytes() == left
    assert (tmp_path / "etc/shadow").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "xcatpost").exists() == (tmp_path / "opt/xcat/xcatinfo").exists() if info else not said
    assert existing.strip_packimage(tmp_path) == []


def test_packimage_links_that_lead_out_are_left_alone(tmp_path: Path) -> None:
    host = put(tmp_path / "host/shadow", "root:hash:13880:0:99999:7:::\n")
    root = tmp_path / "root"
    put(root / "opt/xcat/xcatinfo", "IMAGEUUID='1'\n")
    (root / "etc").mkdir()
    (root / "etc/shadow").symlink_to(host)
    (root / "xcatpost").symlink_to(host.parent)
    assert existing.strip_packimage(root) == ["/opt/xcat/xcatinfo"]
    assert host.read_text() == "root:hash:13880:0:99999:7:::\n"
    assert (root / "xcatpost").is_symlink()
