"""What the setup procedures do on each distribution: package, configuration, service; and that none leaves the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.build.context import BuildContext
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import Job
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.system import command

from .conftest import untouched
from .test_procedures import SHIPPED, shipped

UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
# package -> what it has besides a unit or an init script, and the service's name
CONTENTS: dict[str, tuple[dict[str, str], str]] = {
    "chrony@rpm": ({"usr/sbin/chronyd": "", "etc/chrony.conf": "pool x iburst\n"}, "chronyd"),
    "chrony@deb": ({"usr/sbin/chronyd": "", "etc/chrony/chrony.conf": "pool x iburst\n"}, "chrony"),
    "ntp@rpm": ({"usr/sbin/ntpd": "", "etc/ntp.conf": "server x\n"}, "ntpd"),
    "ntp@deb": ({"usr/sbin/ntpd": "", "etc/ntp.conf": "pool x\n"}, "ntp"),
    "nrpe@rpm": ({"etc/nagios/nrpe.cfg": "", "etc/nrpe.cfg": ""}, "nrpe"),
    "nagios-nrpe-server@deb": ({"etc/nagios/nrpe.cfg": ""}, "nagios-nrpe-server"),
    "ganglia-gmond@rpm": ({"etc/ganglia/gmond.conf": ""}, "gmond"),
    "ganglia-monitor@deb": ({"etc/ganglia/gmond.conf": ""}, "ganglia-monitor"),
    "openssh-server@rpm": ({"etc/ssh/sshd_config": "X11Forwarding yes\n"}, "sshd"),
    "openssh@rpm": ({"etc/ssh/sshd_config": "X11Forwarding yes\n"}, "sshd"),
    "openssh-server@deb": ({"etc/ssh/sshd_config": "X11Forwarding yes\n"}, "ssh"),
    "autofs@rpm": ({}, "autofs"),
    "autofs@deb": ({}, "autofs"),
}


class Installer(Mmdebstrap):
    """Puts the files of a few packages into the image, as systemd or as init scripts know services."""

    def __init__(self, systemd: bool) -> None:
        self.systemd = systemd
        self.installed: list[str] = []

    def install(self, job: Job, names: Sequence[str]) -> None:
        for name in names:
            self.installed.append(name)
            files, service = CONTENTS.get(f"{name}@{job.image.version.packages}", ({}, ""))
            if service:
                files = {
                    **files,
                    f"usr/lib/systemd/system/{service}.service" if self.systemd else f"etc/init.d/{service}": UNIT,
                }
            for path, text in files.items():
                (job.root / path).parent.mkdir(parents=True, exist_ok=True)
                if not (job.root / path).exists():
                    (job.root / path).write_text(text)


ALL = [
    "centos5.11",
    "SL6.3",
    "centos7.9",
    "rhels8.10",
    "rocky9.4",
    "alma10.0",
    "fedora41",
    "sles15.5",
    "debian12",
    "ubuntu24.04",
]
OLD = ("centos5.11", "SL6.3")
DEBS = ("debian12", "ubuntu24.04")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run in the image."""
    found: list[list[str]] = []
    monkeypatch.setattr(BuildContext, "chroot", lambda self, argv, env=None, check=True: found.append(list(argv)))
    return found


def of(ctx: BuildContext, osvers: str, **attributes: str) -> BuildContext:
    if osvers in OLD:
        (ctx.root / "sbin").mkdir()
        (ctx.root / "sbin/chkconfig").touch()
    image = OsImage(f"{osvers}-{attributes.pop('arch', 'x86_64')}-netboot-p", attributes, "a test")
    return replace(ctx, image=image, generator=Installer(osvers not in OLD))


def installed(ctx: BuildContext) -> list[str]:
    assert isinstance(ctx.generator, Installer)
    return ctx.generator.installed


def enabled(ctx: BuildContext, asked: list[list[str]], service: str) -> bool:
    unit = ctx.root / f"etc/systemd/system/multi-user.target.wants/{service}.service"
    return unit.is_symlink() != (["chkconfig", service, "on"] in asked)


@pytest.mark.parametrize("osvers", ALL)
def test_setup_time(ctx: BuildContext, osvers: str, asked: list[list[str]]) -> None:
    ctx = of(ctx, osvers)
    shipped(ctx, "setup_time", servers=("ntp1",))
    if osvers in OLD:
        package, config, service = "ntp", "etc/ntp.conf", "ntpd"
    elif osvers in DEBS:
        package, config, service = "chrony", "etc/chrony/chrony.conf", "chrony"
    else:
        package, config, service = "chrony", "etc/chrony.conf", "chronyd"
    assert installed(ctx) == [package]
    assert (ctx.root / config).read_text() == "server ntp1 iburst\n"
    assert enabled(ctx, asked, service)


@pytest.mark.parametrize("osvers", ["centos7.9", "debian12"])
def test_setup_time_takes_the_daemon_that_is_there(ctx: BuildContext, osvers: str, asked: list[list[str]]) -> None:
    ctx = of(ctx, osvers)
    ctx.install_packages("ntp")
    shipped(ctx, "setup_time", servers=("ntp1", "ntp2"))
    assert installed(ctx) == ["ntp"]
    assert (ctx.root / "etc/ntp.conf").read_text() == "server ntp1 iburst\nserver ntp2 iburst\n"
    assert enabled(ctx, asked, "ntp" if osvers == "debian12" else "ntpd")


def test_setup_time_switches_the_rival_off(ctx: BuildContext, asked: list[list[str]]) -> None:
    ctx = of(ctx, "centos7.9")
    ctx.install_packages("chrony", "ntp")
    ctx.service("ntpd")
    shipped(ctx, "setup_time")
    assert enabled(ctx, asked, "chronyd")
    assert not enabled(ctx, asked, "ntpd")
    shipped(ctx, "setup_time", daemon="ntp")
    assert enabled(ctx, asked, "ntpd")
    assert not enabled(ctx, asked, "chronyd")


@pytest.mark.parametrize("osvers", ALL)
@pytest.mark.parametrize(
    ("name", "rpm", "deb"),
    [
        ("setup_nrpe", ("nrpe", "nrpe"), ("nagios-nrpe-server", "nagios-nrpe-server")),
        ("setup_ganglia", ("ganglia-gmond", "gmond"), ("ganglia-monitor", "ganglia-monitor")),
        ("setup_sshd", ("openssh-server", "sshd"), ("openssh-server", "ssh")),
        ("setup_autofs", ("autofs", "autofs"), ("autofs", "autofs")),
    ],
)
def test_package_and_service(
    ctx: BuildContext, osvers: str, name: str, rpm: tuple[str, str], deb: tuple[str, str], asked: list[list[str]]
) -> None:
    ctx = of(ctx, osvers)
    package, service = deb if osvers in DEBS else rpm
    if (osvers, name) == ("sles15.5", "setup_sshd"):
        package = "openssh"
    shipped(ctx, name)
    assert installed(ctx) == [package]
    assert enabled(ctx, asked, service)
    assert (name == "setup_sshd") == any("sshd -t" in " ".join(argv) for argv in asked)


@pytest.mark.parametrize(("osvers", "config"), [("sles15.5", "etc/nrpe.cfg"), ("rocky9.4", "etc/nagios/nrpe.cfg")])
def test_setup_nrpe_configuration(ctx: BuildContext, osvers: str, config: str) -> None:
    ctx = of(ctx, osvers)
    shipped(ctx, "setup_nrpe", allowed_hosts=("a", "b"))
    assert (ctx.root / config).read_text() == "allowed_hosts=a,b\n"


def test_a_host_without_systemd(ctx: BuildContext, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container to build in is; the image has one."""
    monkeypatch.setattr(command, "find", lambda program: None)
    shipped(of(ctx, "debian12"), "setup_autofs")
    assert asked == [["systemctl", "enable", "autofs"]]


def test_setup_sshd_leaves_a_socket_to_start_it(ctx: BuildContext, asked: list[list[str]]) -> None:
    ctx = of(ctx, "ubuntu24.04")
    wants = ctx.root / "etc/systemd/system/sockets.target.wants"
    wants.mkdir(parents=True)
    (ctx.root / "usr/lib/systemd/system").mkdir(parents=True)
    (ctx.root / "usr/lib/systemd/system/ssh.socket").touch()
    (wants / "ssh.socket").symlink_to("/usr/lib/systemd/system/ssh.socket")
    shipped(ctx, "setup_sshd")
    assert not enabled(ctx, asked, "ssh")


@pytest.mark.parametrize(
    ("osvers", "service", "text", "ours"),
    [
        ("debian12", "ssh", UNIT, True),
        ("ubuntu24.04", "ssh", UNIT, True),
        ("rocky9.4", "sshd", f"[Unit]\nWants=sshd-keygen.target\n{UNIT}", False),
        ("sles15.5", "sshd", f"{UNIT}ExecStartPre=/usr/sbin/sshd-gen-keys-start\n", False),
        ("SL6.3", "sshd", "", False),  # its init script makes them
    ],
)
def test_setup_sshd_has_a_node_make_its_host_keys(
    ctx: BuildContext, osvers: str, service: str, text: str, ours: bool, asked: list[list[str]]
) -> None:
    """With none in the image, and none made by the distribution at boot, sshd would not start."""
    ctx = of(ctx, osvers)
    if text:
        unit = ctx.root / f"usr/lib/systemd/system/{service}.service"
        unit.parent.mkdir(parents=True)
        unit.write_text(text)
    for _ in range(2):
        shipped(ctx, "setup_sshd")
    unit = ctx.root / "etc/systemd/system/avs-ssh-host-keys.service"
    assert unit.exists() == ours
    if ours:
        assert enabled(ctx, asked, "avs-ssh-host-keys")
        assert (ctx.root / f"etc/systemd/system/{service}.service.wants/avs-ssh-host-keys.service").is_symlink()
        assert "ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key\n" in unit.read_text()


@pytest.mark.parametrize(
    ("osvers", "has", "path", "text"),
    [
        ("debian12", "usr/lib/systemd/system/systemd-networkd.service", "etc/systemd/network/80-avs-dhcp.network",
         "[Match]\nName=e* ib0\n\n[Network]\nDHCP=yes\n"),
        ("rocky9.4", "usr/lib/systemd/system/NetworkManager.service", "", ""),
    ],
)  # fmt: skip
def test_setup_network(ctx: BuildContext, osvers: str, has: str, path: str, text: str) -> None:
    ctx = of(ctx, osvers)
    (ctx.root / has).parent.mkdir(parents=True)
    (ctx.root / has).write_text(UNIT)
    for _ in range(2):
        shipped(ctx, "setup_network", interfaces=("e*", "ib0"))
    assert [found.read_text() for found in ctx.root.rglob("*avs-dhcp*") if found.is_file()] == [text] * bool(path)
    if path:
        assert (ctx.root / path).read_text() == text
    assert (ctx.root / "etc/systemd/system/multi-user.target.wants" / Path(has).name).is_symlink()


def test_setup_network_without_a_program_for_it(ctx: BuildContext) -> None:
    with pytest.raises(AvsError, match="neither NetworkManager nor"):
        shipped(of(ctx, "debian12"), "setup_network")
    with pytest.raises(AvsError, match="interfaces names none"):
        shipped(of(ctx, "debian12"), "setup_network", interfaces=())


def test_setup_sshd_leaves_host_keys_alone(ctx: BuildContext, asked: list[list[str]]) -> None:
    ctx = of(ctx, "debian12")
    shipped(ctx, "setup_sshd", host_keys=False)
    assert not (ctx.root / "etc/systemd/system/avs-ssh-host-keys.service").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UseDNS yes\n", "UseDNS no\n"),
        ("usedns=yes\n  USEDNS yes\nUseDNSx yes\n", "UseDNS no\nUseDNSx yes\n"),
        ("#UseDNS yes\nmatch all\nUseDNS yes\n", "UseDNS no\n#UseDNS yes\nmatch all\nUseDNS yes\n"),
        ("MatchX 1\nUseDNS yes", "UseDNS no\nMatchX 1\n"),
        ("", "UseDNS no\n"),
    ],
)
def test_setup_sshd_in_one_file(ctx: BuildContext, text: str, expected: str, asked: list[list[str]]) -> None:
    ctx = of(ctx, "centos7.9")
    ctx.install_packages("openssh-server")
    (ctx.root / "etc/ssh/sshd_config").write_text(text)
    for _ in range(2):
        shipped(ctx, "setup_sshd", use_dns="no")
        assert (ctx.root / "etc/ssh/sshd_config").read_text() == expected


@pytest.mark.parametrize(
    ("osvers", "manager"),
    [("centos5.11", "yum"), ("centos7.9", "yum"), ("rocky9.4", "dnf"), ("fedora41", "dnf"), ("sles15.5", "zypper"),
     ("debian12", "apt"), ("ubuntu24.04", "apt")],
)  # fmt: skip
def test_setup_debug_image(ctx: BuildContext, osvers: str, manager: str) -> None:
    ctx = of(ctx, osvers)
    shipped(ctx, "setup_debug_image", tools=("strace",))
    assert installed(ctx) == [manager, "strace"]


@pytest.mark.parametrize(
    ("osvers", "arch", "package"),
    [("SL6.3", "x86_64", "grub"), ("rocky9.4", "x86_64", "grub2-pc"), ("rocky9.4", "aarch64", "grub2-efi-aa64"),
     ("sles15.5", "x86_64", "grub2"), ("debian12", "x86_64", "grub-pc"), ("ubuntu24.04", "ppc64el", "grub-ieee1275")],
)  # fmt: skip
def test_setup_grub(ctx: BuildContext, osvers: str, arch: str, package: str) -> None:
    ctx = of(ctx, osvers, arch=arch)
    shipped(ctx, "setup_grub")
    assert installed(ctx) == [package]
    assert (ctx.root / "etc/default/grub").exists() == (osvers != "SL6.3")


def test_setup_grub_of_an_architecture_without_one(ctx: BuildContext) -> None:
    with pytest.raises(AvsError, match="no package of GRUB is known for s390x"):
        shipped(of(ctx, "rocky9.4", arch="s390x"), "setup_grub")


@pytest.mark.parametrize(
    ("osvers", "package"),
    [("SL6.3", "kernel-firmware"), ("rocky9.4", "linux-firmware"), ("sles15.5", "kernel-firmware"),
     ("debian12", "firmware-linux-free"), ("ubuntu24.04", "linux-firmware")],
)  # fmt: skip
def test_setup_kernel(ctx: BuildContext, osvers: str, package: str) -> None:
    ctx = of(ctx, osvers)
    for name in ("boot/vmlinuz-1.2", "boot/initrd-1.2.img", "lib/modules/1.2/modules.dep"):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).write_text(name)
    shipped(ctx, "setup_kernel", firmware="install", ipv6=False)
    assert installed(ctx) == [package]
    assert (ctx.paths.tree / "initrd-stateless.gz").read_text() == "boot/initrd-1.2.img"
    assert (ctx.root / "etc/modprobe.d/avs-ipv6.conf").exists()
    if osvers == "SL6.3":
        assert "net.ipv6.conf.all.disable_ipv6 = 1\n" in (ctx.root / "etc/sysctl.conf").read_text()
        assert (ctx.root / "etc/sysconfig/network").read_text() == "NETWORKING_IPV6=no\n"
    else:
        assert (ctx.root / "etc/sysctl.d/90-avs-ipv6.conf").exists()
    shipped(ctx, "setup_kernel")
    left = [
        name for name in ("modprobe.d/avs-ipv6.conf", "sysctl.d/90-avs-ipv6.conf") if (ctx.root / "etc" / name).exists()
    ]
    assert left == []
    for name in ("sysctl.conf", "sysconfig/network"):
        assert not (ctx.root / "etc" / name).exists() or "ipv6" not in (ctx.root / "etc" / name).read_text().lower()


@pytest.mark.parametrize("osvers", ALL)
def test_build_prep(ctx: BuildContext, osvers: str) -> None:
    ctx = of(ctx, osvers)
    (ctx.root / "etc/sysconfig").mkdir()
    if osvers == "sles15.5":
        (ctx.root / "etc/sysconfig/network").mkdir()
    (ctx.root / "usr/share/zoneinfo").mkdir(parents=True)
    (ctx.root / "usr/share/zoneinfo/UTC").touch()
    for _ in range(2):
        shipped(ctx, "build_prep", timezone="UTC")
        assert os.readlink(ctx.root / "etc/localtime") == "../usr/share/zoneinfo/UTC"
    network = ctx.root / "etc/sysconfig/network"
    assert (network.is_file() and network.read_text() == "NOZEROCONF=yes\n") == (osvers not in (*DEBS, "sles15.5"))
    assert (ctx.root / "etc/timezone").exists() == (osvers in DEBS)


@pytest.mark.parametrize(
    ("osvers", "config", "text"),
    [
        ("centos5.11", "yum.conf", "[main]\nmultilib_policy=best\nexclude=*.i?86\ncachedir=/x\n"),
        ("rocky9.4", "dnf/dnf.conf", "[main]\nexclude=*.i?86\ncachedir=/x\n"),
        ("fedora41", "dnf/dnf.conf", "[main]\nexclude=*.i?86\ncachedir=/x\n"),
    ],
)
def test_setup_yum_repos_keeps_32_bits_out(ctx: BuildContext, osvers: str, config: str, text: str) -> None:
    ctx = of(ctx, osvers)
    (ctx.root / "etc/dnf").mkdir()
    for name in ("yum.conf", "dnf/dnf.conf"):
        (ctx.root / "etc" / name).write_text("[main]\ncachedir=/x\n[other]\nexclude=y\n")
    for _ in range(2):
        shipped(ctx, "setup_yum_repos")
        assert (ctx.root / "etc" / config).read_text() == text + "[other]\nexclude=y\n"
    other = {"yum.conf", "dnf/dnf.conf"} - {config}
    assert (ctx.root / "etc" / other.pop()).read_text() == "[main]\ncachedir=/x\n[other]\nexclude=y\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "[main]\na=1\nexclude=*.i?86\n"),
        ("[repo]\na=0\n", "[repo]\na=0\n[main]\na=1\nexclude=*.i?86\n"),
        ("# x\n[main]\n# y\na = 0\n  more\nb=2", "# x\n[main]\na=1\nexclude=*.i?86\n# y\nb=2\n"),
        ("[main]\nexcludepkgs=p,q\n r\na=\nb=2\n", "[main]\na=1\nexclude=p q r *.i?86\nb=2\n"),
        ("[main]\nexclude=\n", "[main]\na=1\nexclude=*.i?86\n"),
    ],
)
def test_setup_yum_repos_in_section_main(ctx: BuildContext, old: str, new: str) -> None:
    ctx = of(ctx, "rocky9.4")
    (ctx.root / "etc/dnf").mkdir()
    (ctx.root / "etc/dnf/dnf.conf").write_text(old)
    for _ in range(2):
        shipped(ctx, "setup_yum_repos", settings=("a=1",))
        assert (ctx.root / "etc/dnf/dnf.conf").read_text() == new


def test_setup_yum_repos_of_sles_are_those_of_zypper(ctx: BuildContext) -> None:
    ctx = of(ctx, "sles15.5")
    for name in ("zypp/repos.d/a.repo", "yum.repos.d/b.repo"):
        path = ctx.installdir / "custom/avs/files" / name
        path.parent.mkdir(parents=True)
        path.touch()
    shipped(ctx, "setup_yum_repos")
    assert os.listdir(ctx.root / "etc/zypp/repos.d") == ["a.repo"]
    assert not (ctx.root / "etc/yum.repos.d").exists()


@pytest.mark.parametrize(
    ("osvers", "updates", "suites"),
    [
        ("ubuntu24.04", True, ["noble", "noble-updates", "noble-security"]),
        ("ubuntu24.04", False, ["noble"]),
        ("debian12", True, ["bookworm", "bookworm-updates"]),
    ],
)
def test_setup_apt_sources(ctx: BuildContext, osvers: str, updates: bool, suites: list[str]) -> None:
    ctx = of(ctx, osvers, pkgdir="http://a.example/x")
    with pytest.raises(AvsError, match="does not name its suite"):
        shipped(ctx, "setup_apt_sources")
    (ctx.root / "etc/os-release").write_text(f'ID=x\nVERSION_CODENAME="{suites[0]}"\n')
    shipped(ctx, "setup_apt_sources", updates=updates)
    components = "main universe" if osvers == "ubuntu24.04" else "main"
    expected = [f"deb http://a.example/x {suite} {components}" for suite in suites]
    assert (ctx.root / "etc/apt/sources.list").read_text().splitlines() == expected


SITE = ("hosts", "localtime", "fstab", "authorized_keys", "auto.master", "sshd_config", "nrpe.cfg", "gmond.conf", "chrony.conf",
        "dnf.conf", "yum.repos.d/x.repo")  # fmt: skip


@pytest.mark.parametrize("name", [*sorted(path.stem for path in SHIPPED.glob("setup_*.py")), "build_prep"])
@pytest.mark.parametrize(
    "link", ["etc", "etc/ssh", "etc/nagios", "etc/default", "etc/modprobe.d", "root", "usr/lib/systemd/system"]
)
def test_links_of_the_image_lead_to_no_place_of_the_host(
    ctx: BuildContext,
    host: Path,
    name: str,
    link: str,
    asked: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole of /etc of an image may be a link to where the host keeps something."""
    ctx = of(ctx, "rocky9.4")
    (ctx.root / "etc").rmdir()
    (ctx.root / link).parent.mkdir(parents=True, exist_ok=True)
    (ctx.root / link).symlink_to(host)
    (ctx.root / str(host).lstrip("/")).mkdir(parents=True)
    for item in (*SITE, "lib/modules/1/x"):
        path = ctx.installdir / "custom/avs/files" / item
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    keys = tmp_path / "keys"
    keys.mkdir()
    for item in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub"):
        (keys / item).write_text("x")
    ctx.install_file("root:x:0:0::/root:/bin/sh\n", "/etc/passwd")
    ctx.install_file("SELINUX=enforcing\n", "/etc/selinux/config")
    for item in ("boot/vmlinuz-1", "lib/modules/1/x"):
        ctx.install_file("x", item)
    options: dict[str, Any] = {
        "setup_ssh_host_keys": {"directory": str(keys)}, "setup_kernel": {"ipv6": False},
    }  # fmt: skip
    before = sorted(host.rglob("*"))
    monkeypatch.setattr(Installer, "install", lambda self, job, names: None)  # what it would bring is there
    for service in ("chronyd", "nrpe", "gmond", "sshd", "autofs", "NetworkManager"):
        ctx.install_file(UNIT, f"/usr/lib/systemd/system/{service}.service")
    if name in ("setup_ganglia", "setup_nrpe"):
        ctx.install_file("x\n", "/etc/ganglia/gmond.conf")
    shipped(ctx, name, **options.get(name, {}))
    assert untouched(host)
    assert sorted(host.rglob("*")) == before
