"""The setup procedures, each on a tree that mmdebstrap and on one that dnf has built; the second run changes nothing."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import debrepo
import pytest
import rpmrepo
from harness import mounts_below

from integration.harness import PROFILE, Installation, copy, difference
from integration.test_procedures import add_programs
from xcat_avs.build.context import BuildContext, perform
from xcat_avs.build.paths import BuildPaths
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import Generator, Job
from xcat_avs.generate.dnf import Dnf
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.recipes.procedure import Layer, load
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.settings import Settings
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.tree import kernels, manifest, scan

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).resolve().parents[2] / "xcat_avs/procedures/common"
WANTS = "etc/systemd/system/multi-user.target.wants"
DIGESTS: dict[
    tuple[str, int, int], str
] = {}  # of files by path, size and time: most are those of the tree that all have
UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
GMOND = """globals {
  daemonize = yes
}
cluster {
  owner = "unspecified"
  name = "unspecified"
}
host {
  location = "unspecified"
}
udp_send_channel {
  mcast_join = 239.2.11.71
  port = 8649
}
udp_recv_channel {
  mcast_join = 239.2.11.71
}
"""
NRPE = "log_facility=daemon\nallowed_hosts=127.0.0.1,::1\n#allowed_hosts=none\n"
SSHD = "# shipped\nPermitRootLogin no\nUseDNS yes\n#X11Forwarding no\nMatch User git\n    PermitRootLogin no\n"
TOOLS = ("strace", "gdb", "tcpdump", "lsof")
SECOND = "5.14.0-9.el9.x86_64"  # older than rpmrepo.KVER as a number, newer as a text


def unit(name: str) -> dict[str, str]:
    return {f"/usr/lib/systemd/system/{name}.service": UNIT}


DEBS = [
    debrepo.Package(
        "nagios-nrpe-server",
        {"/usr/sbin/nrpe": "#!/bin/sh\n", "/etc/nagios/nrpe.cfg": NRPE, **unit("nagios-nrpe-server")},
    ),
    debrepo.Package("ganglia-monitor", {"/etc/ganglia/gmond.conf": GMOND, **unit("ganglia-monitor")}),
    debrepo.Package(
        "autofs", {"/etc/auto.master": "+auto.master\n", "/etc/init.d/autofs": "#!/bin/sh\n", **unit("autofs")}
    ),
    debrepo.Package(
        "ntpsec",
        {
            "/usr/sbin/ntpd": "#!/bin/sh\n",
            "/etc/ntpsec/ntp.conf": "pool a.example.org iburst\nrestrict ::1\n",
            **unit("ntpsec"),
        },
    ),
    debrepo.Package("ntp", fields="Depends: ntpsec\n"),  # as Debian 12 has it
    debrepo.Package(
        "grub-pc", scripts={"postinst": "#!/bin/sh\nprintf 'GRUB_DEFAULT=0\\nGRUB_TIMEOUT=30\\n' >/etc/default/grub\n"}
    ),
    *(debrepo.Package(name, {f"/usr/bin/{name}": "#!/bin/sh\n"}) for name in (*TOOLS, "extra-one", "extra-two")),
    debrepo.Package("needs-unwanted", fields="Depends: unwanted\n"),
    debrepo.Package("unwanted", {"/etc/unwanted": "x\n"}),
    debrepo.Package("aging", {"/usr/share/aging": "1\n"}, "1.0"),
    debrepo.Package("aging", {"/usr/share/aging": "2\n"}, "2.0"),
    debrepo.Package("firmware-linux-free", {"/usr/lib/firmware/x.bin": "x"}),
]


def rpms() -> list[rpmrepo.Package]:
    needs = "Requires: filesystem"

    def units(*names: str) -> dict[str, bytes | str | None]:
        return {f"/usr/lib/systemd/system/{name}.service": UNIT.encode() for name in names}

    kernel: dict[str, bytes | str | None] = {
        f"/boot/vmlinuz-{SECOND}": b"the second kernel\n",
        f"/boot/initramfs-{SECOND}.img": b"its initrd\n",
        f"/lib/modules/{SECOND}/modules.dep": b"",
    }
    ran = '%post -p <lua>\nio.open("/var/lib/sshd.post", "w"):write("ran\\n"):close()\n'
    repo = b"[main]\ngpgcheck=1\nexclude=kernel-rt* ,\n  kernel-debug*\nbest=True\n"
    return [
        rpmrepo.Package("chrony", {"/usr/sbin/chronyd": b"#!/bin/sh\n", "/etc/chrony.conf": b"pool 2.rocky.pool.example.org iburst\ndriftfile /d\n",
                                   **units("chronyd")}, tags=needs),
        rpmrepo.Package("nrpe", {"/etc/nagios/nrpe.cfg": NRPE.encode(), **units("nrpe")}, tags=needs),
        rpmrepo.Package("ganglia-gmond", {"/etc/ganglia/gmond.conf": GMOND.encode(), **units("gmond")}, tags=needs),
        rpmrepo.Package("autofs", {"/etc/auto.master": b"+auto.master\n", **units("autofs")}, tags=needs),
        rpmrepo.Package("openssh-server", {"/usr/sbin/sshd": b"#!/bin/sh\n", "/etc/ssh/sshd_config": SSHD.encode(), **units("sshd")},
                        tags=f"{needs}\nRequires(post): filesystem", attrs={"/etc/ssh/sshd_config": "%attr(0600, root, root) %config"}, scripts=ran),
        rpmrepo.Package("dnf", {"/usr/bin/dnf": b"#!/bin/sh\n", "/etc/dnf/dnf.conf": repo, "/etc/yum.repos.d/vendor.repo": b"[vendor]\n"}, tags=needs),
        rpmrepo.Package("kernel-second", kernel, "5.14.0", needs),
        rpmrepo.Package("selinux-policy", {"/etc/selinux/config": b"# about\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
                                           "/etc/sysconfig/selinux": "../selinux/config"}, tags=needs),
        rpmrepo.Package("tzdata", {"/usr/share/zoneinfo/Europe/Warsaw": b"TZif2 Warsaw"}, tags=needs),
        rpmrepo.Package("grub2-pc", {"/etc/default/grub": b'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX="quiet"\n'}, tags=needs),
        rpmrepo.Package("linux-firmware", {"/usr/lib/firmware/x.bin": b"x"}, tags=needs),
        *(rpmrepo.Package(name, {f"/usr/bin/{name}": b"#!/bin/sh\n"}, tags=needs) for name in (*TOOLS, "extra-one", "extra-two")),
        rpmrepo.Package("needs-unwanted", tags=f"{needs} unwanted"),
        rpmrepo.Package("unwanted", {"/etc/unwanted": b"x\n"}, tags=needs),
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _machine_is_left_alone() -> Iterator[None]:
    """Not one file of the machine's own /etc is other after all these tests, not even in its time."""
    before = scan.scan("/etc", ["fsvs"])
    assert len(before) > 100
    yield
    assert manifest.compare(before, scan.scan("/etc", ["fsvs"]), times=True) == []


@dataclass
class Image:
    """A context on a tree of its own, and how to run procedures in it."""

    ctx: BuildContext

    @property
    def root(self) -> Path:
        return self.ctx.root

    @property
    def files(self) -> Path:
        return self.ctx.installdir / "custom/avs/files"

    def site(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def once(self, name: str, /, **options: Any) -> str:
        """Run a procedure; returns its log."""
        found = load(SHIPPED / f"{name}.py", Layer("shipped", SHIPPED, trusted=True))
        assert options.keys() <= found.options.keys()
        defaults = {option.name: option.default for option in found.options.values()}
        self.ctx.log.write_text("")
        perform(replace(self.ctx, procedure=found, options={**defaults, **options}))
        assert mounts_below(self.root.parent) == []
        return self.ctx.log.read_text()

    def twice(self, name: str, /, **options: Any) -> str:
        """Run a procedure, and then again, which must change nothing; returns the first log."""
        text = self.once(name, **options)
        before = self.look()
        self.once(name, **options)
        assert difference(before, self.look()) == {}, f"{name} is not done when it was done once"
        return text

    def refused(self, name: str, /, **options: Any) -> str:
        """Run a procedure that must fail, with an error in words and no change of the tree; returns the error."""
        before = self.look()
        with pytest.raises(AvsError) as caught:
            self.once(name, **options)
        assert difference(before, self.look()) == {}
        return str(caught.value)

    def look(self) -> dict[str, tuple[object, ...]]:
        """What difference() compares: all of the tree but the caches and logs of package managers."""
        found: dict[str, tuple[object, ...]] = {}
        top = str(self.ctx.paths.tree)
        for path, status in scan.walk(top, ["rootimg/var/cache", "rootimg/var/log", "rootimg/var/lib/apt"]):
            content: object = status.st_rdev
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(os.path.join(top, path))
            elif stat.S_ISREG(status.st_mode):
                key = (path, status.st_size, status.st_mtime_ns)
                if key not in DIGESTS:
                    DIGESTS[key] = scan.digest(os.path.join(top, path))
                content = DIGESTS[key]
            found[path] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def what(self, name: str) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        status = (self.root / name).lstat()
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def enabled(self, service: str) -> bool:
        return (self.root / WANTS / f"{service}.service").is_symlink()


def image(tree: Path, top: Path, name: str, generator: Generator, **attributes: str) -> Image:
    paths = BuildPaths(tree, top / "results", top / "logs")
    found = load(SHIPPED / "build_prep.py", Layer("shipped", SHIPPED, trusted=True))
    return Image(
        BuildContext(OsImage(name, attributes, "a test"), Recipe((), Settings()), {}, top / "install", paths, top / "log",
                     generator, None, Progress(io.StringIO()), found)
    )  # fmt: skip


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def refuse(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


DEBIAN, ROCKY = "debian12-x86_64-netboot-compute", "rocky9.4-x86_64-netboot-compute"


@pytest.fixture(scope="module")
def debian_tree(tmp_path_factory: pytest.TempPathFactory, small_debian: Path) -> Path:
    """A small Debian with real ssh and chrony; its only source is a directory of small debs in it."""
    need("mmdebstrap", "dpkg-deb")
    top = tmp_path_factory.mktemp("debian")
    (top / "build/tree").mkdir(parents=True)
    root = copy(small_debian, top / "build/tree/rootimg")
    debrepo.build_repo(root / "srv/debs", top / "debs", DEBS)
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/debs ./\n")
    return root.parent


@pytest.fixture(scope="module")
def rpm_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("dnf", "rpm", "rpmbuild", "createrepo_c")
    return rpmrepo.build_repo(tmp_path_factory.mktemp("rpms"), rpms())


@pytest.fixture(scope="module")
def rocky_tree(tmp_path_factory: pytest.TempPathFactory, rpm_repository: Path) -> Path:
    top = tmp_path_factory.mktemp("rocky")
    (top / "pkglist").write_text("filesystem setup bash kernel-core kernel-second dnf selinux-policy tzdata\n")
    root = top / "build/tree/rootimg"
    root.mkdir(parents=True)
    attributes = {"pkglist": str(top / "pkglist"), "pkgdir": str(rpm_repository)}
    Dnf().generate(Job(OsImage(ROCKY, attributes, "a test"), root, Runner(top / "log"), refuse))
    kernels.take_kernel(root, root.parent)
    return root.parent


@pytest.fixture
def debian(debian_tree: Path, tmp_path: Path) -> Iterator[Image]:
    """A layer of its own over the tree; a copy would take longer than the tests."""
    tree, layers = tmp_path / "build/tree", tmp_path / "layers"
    for path in (tree, layers):
        path.mkdir(parents=True)
    mount("-t", "tmpfs", "none", str(layers))
    try:
        for name in ("upper", "work"):
            (layers / name).mkdir()
        mount(
            "-t",
            "overlay",
            "-o",
            f"lowerdir={debian_tree},upperdir={layers}/upper,workdir={layers}/work",
            "none",
            str(tree),
        )
        try:
            yield image(tree, tmp_path, DEBIAN, Mmdebstrap())
        finally:
            subprocess.run(["umount", str(tree)], check=True, timeout=60)
    finally:
        subprocess.run(["umount", str(layers)], check=True, timeout=60)


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True, timeout=60)


@pytest.fixture
def rocky(rocky_tree: Path, rpm_repository: Path, tmp_path: Path) -> Image:
    (tmp_path / "build").mkdir()
    return image(copy(rocky_tree, tmp_path / "build/tree"), tmp_path, ROCKY, Dnf(), pkgdir=str(rpm_repository))


@pytest.fixture(params=["debian", "rocky"])
def either(request: pytest.FixtureRequest) -> Image:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Image)
    return found


def is_deb(found: Image) -> bool:
    return found.ctx.image.version.packages == "deb"


# -- build_prep


def test_build_prep(either: Image) -> None:
    for name in ("hosts", "hosts.allow", "resolv.conf", "localtime"):
        either.site(name, f"site {name}\n")
    (either.root / "etc/sysconfig").mkdir(exist_ok=True)
    either.twice("build_prep", timezone="Europe/Warsaw")
    assert [either.read(f"etc/{name}") for name in ("hosts", "hosts.allow")] == ["site hosts\n", "site hosts.allow\n"]
    assert os.readlink(either.root / "etc/localtime") == "../usr/share/zoneinfo/Europe/Warsaw"
    assert (either.root / "etc/localtime").read_bytes().startswith(b"TZif")
    assert (either.root / "home").is_dir()
    if is_deb(either):
        assert either.read("etc/timezone") == "Europe/Warsaw\n"
        assert not (either.root / "etc/sysconfig/network").exists()
    else:
        assert not (either.root / "etc/timezone").exists()
        assert either.read("etc/sysconfig/network") == "NOZEROCONF=yes\n"


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "Europe", "../../../etc/passwd", "/etc/passwd"])
def test_build_prep_with_a_zone_that_the_image_has_not(rocky: Image, zone: str) -> None:
    assert f"no time zone {zone!r}" in rocky.refused("build_prep", timezone=zone)


# -- repositories


def test_setup_yum_repos(rocky: Image) -> None:
    rocky.site("yum.repos.d/site.repo", "[site]\nbaseurl=http://example.com/@ARCH@\n")
    rocky.site(
        "yum.repos.d/base.repo.in", "[base]\nbaseurl=http://example.com/@OSVERS@/@MAJOR@/@ARCH@/$basearch\nx=@OTHER@\n"
    )
    rocky.twice("setup_yum_repos", epel="http://example.com/epel/@MAJOR@/Everything/@ARCH@/",
                epel_key="http://example.com/KEY", settings=("keepcache=0", "best=False"))  # fmt: skip
    directory = rocky.root / "etc/yum.repos.d"
    assert sorted(os.listdir(directory)) == ["base.repo", "epel.repo", "site.repo"]
    assert (directory / "site.repo").read_text().endswith("/@ARCH@\n"), "only a template is filled in"
    assert (directory / "base.repo").read_text() == (
        "[base]\nbaseurl=http://example.com/rocky9.4/9/x86_64/$basearch\nx=@OTHER@\n"
    )
    assert "baseurl=http://example.com/epel/9/Everything/x86_64/\n" in (directory / "epel.repo").read_text()
    assert "gpgcheck=1\ngpgkey=http://example.com/KEY\n" in (directory / "epel.repo").read_text()
    assert rocky.read("etc/dnf/dnf.conf") == (
        "[main]\nkeepcache=0\nbest=False\nexclude=kernel-rt* kernel-debug* *.i?86\ngpgcheck=1\n"
    )


def test_dnf_reads_what_setup_yum_repos_writes(rocky: Image, rpm_repository: Path) -> None:
    rocky.site("dnf.conf", "[main]\ngpgcheck=0\nexclude=extra-one\n")
    rocky.site("yum.repos.d/avs.repo.in", f"[avs-@MAJOR@]\nname=avs\nbaseurl={rpm_repository.as_uri()}\n")
    rocky.once("setup_yum_repos", settings=("install_weak_deps=False",))
    top = rocky.files.parent
    argv = ["dnf", "-q", "--config", str(rocky.root / "etc/dnf/dnf.conf"), f"--setopt=reposdir={rocky.root}/etc/yum.repos.d",
            f"--setopt=cachedir={top}/cache", f"--setopt=logdir={top}", f"--installroot={top}", "--releasever=9",
            "repoquery", "--qf", "%{name} %{reponame}", "extra-*"]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "HOME": str(top)}
    found = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout.split("\n")
    assert [line for line in found if line] == ["extra-two avs-9"]


def test_setup_yum_repos_with_multilib_and_a_site_file(rocky: Image) -> None:
    rocky.site("dnf.conf", "# of the site\n[main]\nmetadata_expire=1h")
    rocky.twice("setup_yum_repos", multilib=True)
    assert rocky.read("etc/dnf/dnf.conf") == "# of the site\n[main]\nmetadata_expire=1h\n"
    rocky.twice("setup_yum_repos")
    assert rocky.read("etc/dnf/dnf.conf") == "# of the site\n[main]\nexclude=*.i?86\nmetadata_expire=1h\n"
    assert os.listdir(rocky.root / "etc/yum.repos.d") == ["vendor.repo"], "the site has none: those of packages stay"
    assert "KEY=VALUE" in rocky.refused("setup_yum_repos", settings=("keepcache",))


def test_setup_yum_repos_upgrades(rocky: Image, rpm_repository: Path, tmp_path: Path) -> None:
    """An update of a package, and a newer kernel that nodes must boot then."""
    newer, release = "extra-one", "5.14.0-10.el9.x86_64"
    rocky.ctx.install_packages(newer)
    kernel: dict[str, bytes | str | None] = {
        f"/boot/vmlinuz-{release}": b"the newest kernel\n", f"/boot/initramfs-{release}.img": b"its initrd\n",
        f"/lib/modules/{release}/modules.dep": b"",
    }  # fmt: skip
    updates = rpmrepo.build_repo(
        tmp_path,
        [
            rpmrepo.Package(newer, {"/usr/bin/extra-one": b"#!/bin/sh\n# two\n"}, "2.0", "Requires: filesystem"),
            rpmrepo.Package("kernel-second", kernel, "5.14.1", "Requires: filesystem"),
        ],
    )
    attributes = {"pkgdir": f"{rpm_repository},{updates}"}
    rocky.ctx = replace(rocky.ctx, image=OsImage(ROCKY, attributes, "a test"))
    rocky.twice("setup_yum_repos", upgrade=True)
    assert rocky.read("usr/bin/extra-one") == "#!/bin/sh\n# two\n"
    assert not (rocky.root / f"boot/vmlinuz-{SECOND}").exists()
    assert (rocky.ctx.paths.tree / "kernel").read_bytes() == b"the newest kernel\n"
    assert (rocky.ctx.paths.tree / "initrd-stateless.gz").read_bytes() == b"its initrd\n"


def test_setup_apt_sources_of_the_site(debian: Image) -> None:
    own = debian.read("etc/apt/sources.list")
    assert "left as they are" in debian.twice("setup_apt_sources")
    assert debian.read("etc/apt/sources.list") == own
    debian.site("sources.list.d/site.list", "deb http://example.com/debian bookworm main\n")
    debian.site("sources.list.d/README", "no source\n")
    debian.site("keyrings/site.gpg", "key", 0o600)
    debian.site("trusted.gpg.d/site.asc", "key")
    debian.twice("setup_apt_sources", keep=True)
    assert debian.read("etc/apt/sources.list") == own
    debian.twice("setup_apt_sources")
    assert not (debian.root / "etc/apt/sources.list").exists()
    assert os.listdir(debian.root / "etc/apt/sources.list.d") == ["site.list"]
    assert debian.what("etc/apt/keyrings/site.gpg") == (0o644, 0, 0)
    assert debian.read("etc/apt/trusted.gpg.d/site.asc") == "key"


@pytest.mark.parametrize(
    ("pkgdir", "options", "lines"),
    [
        ("http://a.example/debian", {}, ["http://a.example/debian bookworm main"]),
        (
            "http://a.example/debian,/a/directory,http://b.example/debian bookworm-security main contrib",
            {"updates": True},
            [
                "http://a.example/debian bookworm main",
                "http://a.example/debian bookworm-updates main",
                "http://b.example/debian bookworm-security main contrib",
            ],
        ),
        (
            "http://a.example/debian",
            {"mirrors": ("http://c.example/debian",), "suite": "stable", "components": ("main", "non-free")},
            ["http://c.example/debian stable main non-free"],
        ),
    ],
)
def test_setup_apt_sources_by_options(debian: Image, pkgdir: str, options: dict[str, Any], lines: list[str]) -> None:
    debian.ctx = replace(debian.ctx, image=OsImage(DEBIAN, {"pkgdir": pkgdir}, "a test"))
    debian.twice("setup_apt_sources", **options)
    assert debian.read("etc/apt/sources.list") == "".join(f"deb {line}\n" for line in lines)
    debian.twice("setup_apt_sources", keep=True, **options)
    assert debian.read("etc/apt/sources.list.d/avs.list") == debian.read("etc/apt/sources.list")


def test_setup_apt_sources_upgrades(debian: Image) -> None:
    debian.ctx.install_packages("aging=1.0")
    assert debian.read("usr/share/aging") == "1\n"
    debian.twice("setup_apt_sources", upgrade=True)
    assert debian.read("usr/share/aging") == "2\n"


@pytest.mark.parametrize(("name", "other"), [("setup_apt_sources", "rocky"), ("setup_yum_repos", "debian")])
def test_repositories_of_the_other_kind(request: pytest.FixtureRequest, name: str, other: str) -> None:
    found = request.getfixturevalue(other)
    found.site("sources.list", "deb x y z\n")
    found.site("yum.repos.d/x.repo", "[x]\n")
    before = found.look()
    assert "nothing to do" in found.once(name)
    assert difference(before, found.look()) == {}


# -- the rest of the base


def test_setup_disable_selinux(rocky: Image) -> None:
    rocky.twice("setup_disable_selinux")
    assert rocky.read("etc/selinux/config") == "# about\nSELINUX=disabled\nSELINUXTYPE=targeted\n"
    assert (rocky.root / "etc/sysconfig/selinux").is_symlink()
    rocky.twice("setup_disable_selinux", mode="permissive")
    assert "SELINUX=permissive\n" in rocky.read("etc/selinux/config")


def test_setup_disable_selinux_where_there_is_none(debian: Image) -> None:
    before = debian.look()
    assert "nothing to switch off" in debian.once("setup_disable_selinux")
    assert difference(before, debian.look()) == {}


def findmnt(found: Image) -> list[list[str]]:
    """The table as the machine's own findmnt reads it."""
    argv = ["findmnt", "--tab-file", str(found.root / "etc/fstab"), "-n", "-r", "-o", "SOURCE,TARGET,FSTYPE,OPTIONS"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_setup_fstab(either: Image) -> None:
    either.twice("setup_fstab")
    assert findmnt(either) == [
        ["compute", "/", "tmpfs", "rw"],
        ["proc", "/proc", "proc", "defaults"],
        ["sysfs", "/sys", "sysfs", "defaults"],
        ["devpts", "/dev/pts", "devpts", "gid=5,mode=620"],
        ["tmpfs", "/dev/shm", "tmpfs", "defaults"],
    ]
    assert either.what("etc/fstab") == (0o644, 0, 0)


def test_setup_fstab_with_options(rocky: Image) -> None:
    rocky.site("fstab", "nfs.example.com:/home /home nfs rw 0 0\n")
    rocky.twice("setup_fstab", name="node", root_size="4g", shm_size="50%", tmp_size="1g")
    table = findmnt(rocky)
    assert table[0] == ["node", "/", "tmpfs", "rw,size=4g"]
    assert table[4:] == [
        ["tmpfs", "/dev/shm", "tmpfs", "defaults,size=50%"],
        ["tmpfs", "/tmp", "tmpfs", "mode=1777,size=1g"],
        ["nfs.example.com:/home", "/home", "nfs", "rw"],
    ]
    days = [time.strftime("compute_%Y-%m-%d")]
    rocky.once("setup_fstab", date=True)
    days.append(time.strftime("compute_%Y-%m-%d"))
    assert findmnt(rocky)[0][0] in days
    for wrong in ({"name": "two words"}, {"root_size": "1 g"}):
        assert "one word" in rocky.refused("setup_fstab", **wrong)


def test_setup_debug_image(either: Image) -> None:
    either.twice("setup_debug_image")
    assert {*TOOLS, "apt" if is_deb(either) else "dnf"} <= set(either.ctx.packages())
    either.once("setup_debug_image", manager=False, tools=("extra-one",))
    assert "extra-one" in either.ctx.packages()
    with pytest.raises(AvsError):
        either.once("setup_debug_image", tools=("no-such-tool",))
    assert "no-such-tool" in either.ctx.log.read_text()


def test_setup_additional_packages(either: Image, tmp_path: Path) -> None:
    either.site("site.pkglist", "# why\nextra-one  # what for\n#INCLUDE:more.list#\n-unwanted -not-there\n")
    either.site("more.list", "lsof\n")
    (tmp_path / "own.list").write_text("-strace\n")
    either.ctx.install_packages("strace", "needs-unwanted")
    either.twice(
        "setup_additional_packages", lists=("site.pkglist", str(tmp_path / "own.list")), packages=("extra-two",)
    )
    found = set(either.ctx.packages())
    assert {"extra-one", "extra-two", "lsof"} <= found
    assert found & {"unwanted", "strace", "needs-unwanted"} == set(), "what is unwanted takes with it what needs it"
    assert not (either.root / "etc/unwanted").exists()


def test_setup_additional_packages_refuses(rocky: Image) -> None:
    rocky.site("odd.list", "needs-unwanted -unwanted\n")
    with pytest.raises(AvsError, match=r"needs-unwanted cannot be without unwanted; fix .*/odd\.list"):
        rocky.once("setup_additional_packages", lists=("odd.list",))
    assert "no packages to add" in rocky.once("setup_additional_packages")
    assert "no files/none.list" in rocky.refused("setup_additional_packages", lists=("none.list",))
    rocky.site("bad.list", "one\ntwo;three\n")
    assert "bad.list, line 2: 'two;three'" in rocky.refused("setup_additional_packages", lists=("bad.list",))


# -- services


def test_setup_time(either: Image) -> None:
    config, service = ("etc/chrony/chrony.conf", "chrony") if is_deb(either) else ("etc/chrony.conf", "chronyd")
    if is_deb(either):
        (either.root / WANTS / "chrony.service").unlink()
    either.twice("setup_time", servers=("ntp1.example.com", "ntp2.example.com"))
    lines = either.read(config).splitlines()
    assert lines[:2] == ["server ntp1.example.com iburst", "server ntp2.example.com iburst"]
    assert [line for line in lines[2:] if line.startswith(("server", "pool", "peer"))] == []
    assert any(line.startswith("driftfile") for line in lines), "the rest of the package's configuration is gone"
    assert either.enabled(service)
    if is_deb(either):
        either.ctx.chroot(["chronyd", "-p", "-f", f"/{config}"])  # the real one reads it
    either.site("chrony.conf", "# of the site\n")
    either.twice("setup_time", servers=("ntp1",))
    assert either.read(config) == "# of the site\n"


def test_setup_time_with_the_other_daemon(debian: Image) -> None:
    debian.twice("setup_time", daemon="ntp", servers=("ntp1",))
    assert debian.read("etc/ntpsec/ntp.conf") == "server ntp1 iburst\nrestrict ::1\n"
    assert debian.enabled("ntpsec")
    assert not debian.enabled("chrony")


def test_setup_nrpe(either: Image) -> None:
    either.twice("setup_nrpe", allowed_hosts=("10.0.0.1", "10.0.0.2"), plugins=("extra-one",))
    text = either.read("etc/nagios/nrpe.cfg")
    assert text == "log_facility=daemon\nallowed_hosts=10.0.0.1,10.0.0.2\n#allowed_hosts=none\n"
    assert either.enabled("nagios-nrpe-server" if is_deb(either) else "nrpe")
    assert "extra-one" in either.ctx.packages()
    either.site("nrpe.cfg", "# of the site\n")
    either.twice("setup_nrpe")
    assert either.read("etc/nagios/nrpe.cfg") == "# of the site\n"


def test_setup_ganglia(either: Image) -> None:
    either.twice("setup_ganglia", cluster="my cluster", host="10.0.0.1", port=8650)
    text = either.read("etc/ganglia/gmond.conf")
    kept = GMOND.replace('  name = "unspecified"', '  name = "my cluster"')
    kept = kept.replace("udp_send_channel {\n  mcast_join = 239.2.11.71\n  port = 8649\n}\n", "")
    assert text == kept + "udp_send_channel {\n  host = 10.0.0.1\n  port = 8650\n  ttl = 1\n}\n"
    assert either.enabled("ganglia-monitor" if is_deb(either) else "gmond")
    either.twice("setup_ganglia", host="239.1.1.1")
    assert "  mcast_join = 239.1.1.1\n" in either.read("etc/ganglia/gmond.conf")
    either.site("gmond.conf", "# of the site\n")
    either.twice("setup_ganglia", cluster="other")
    assert either.read("etc/ganglia/gmond.conf") == "# of the site\n"


def test_setup_sshd_beside_an_include(debian: Image) -> None:
    """The real sshd of the image says what holds."""
    (debian.root / WANTS / "ssh.service").unlink()
    (debian.root / "etc/ssh/sshd_config.d/50-vendor.conf").write_text("UseDNS yes\n")
    own = debian.read("etc/ssh/sshd_config")
    debian.twice("setup_sshd", permit_root_login="prohibit-password", password_authentication="no", use_dns="no",
                 max_startups="100:30:300", x11_forwarding="no", settings=("LogLevel=VERBOSE",))  # fmt: skip
    said = {
        line.split()[0]: " ".join(line.split()[1:])
        for line in subprocess.run(
            ["chroot", str(debian.root), "sh", "-c", "mkdir -p /run/sshd; /usr/sbin/sshd -T; rmdir /run/sshd"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()
    }  # fmt: skip
    wanted = {"permitrootlogin": "without-password", "passwordauthentication": "no", "usedns": "no", "x11forwarding": "no",
              "maxstartups": "100:30:300", "loglevel": "VERBOSE"}  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted
    assert debian.read("etc/ssh/sshd_config") == own
    assert debian.what("etc/ssh/sshd_config.d/00-avs.conf") == (0o600, 0, 0)
    assert debian.enabled("ssh")
    debian.twice("setup_sshd")
    assert not (debian.root / "etc/ssh/sshd_config.d/00-avs.conf").exists()


def test_setup_sshd_in_its_file(rocky: Image) -> None:
    rocky.twice("setup_sshd", permit_root_login="yes", use_dns="no", settings=("LogLevel=VERBOSE",), check=False)
    assert rocky.read("etc/ssh/sshd_config") == (
        "PermitRootLogin yes\nUseDNS no\nLogLevel VERBOSE\n"
        "# shipped\n#X11Forwarding no\nMatch User git\n    PermitRootLogin no\n"
    )
    assert rocky.what("etc/ssh/sshd_config") == (0o600, 0, 0)
    assert rocky.enabled("sshd")
    assert rocky.read("var/lib/sshd.post") == "ran\n"
    assert "is not KEYWORD=VALUE" in rocky.refused("setup_sshd", settings=("LogLevel",), check=False)


def test_setup_sshd_with_a_file_of_the_site(debian: Image) -> None:
    debian.site("sshd_config", "PermitRootLogin yes\nUseDNS no\n")
    debian.twice("setup_sshd", permit_root_login="no")
    assert debian.read("etc/ssh/sshd_config") == "PermitRootLogin yes\nUseDNS no\n"
    debian.site("sshd_config", "PermitRootLogin perhaps\n")
    with pytest.raises(CommandError) as caught:
        debian.once("setup_sshd")
    assert any("perhaps" in line for line in caught.value.tail), caught.value.tail


def test_setup_autofs(either: Image) -> None:
    either.site("auto.master", "/data /etc/auto.data\n", 0o640)
    either.site("auto.data", "#!/bin/sh\n", 0o755)
    either.site("auto.master.d/site.autofs", "/x /etc/auto.x\n")
    either.site("other", "not one\n")
    either.twice("setup_autofs")
    assert either.read("etc/auto.master") == "/data /etc/auto.data\n"
    assert [either.what(f"etc/{name}")[0] for name in ("auto.master", "auto.data")] == [0o644, 0o755]
    assert either.read("etc/auto.master.d/site.autofs") == "/x /etc/auto.x\n"
    assert not (either.root / "etc/other").exists()
    assert either.enabled("autofs")


def test_service_of_an_init_script_by_the_real_update_rc_d(debian: Image) -> None:
    header = "### BEGIN INIT INFO\n# Provides: old\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 6\n### END INIT INFO\n"
    debian.ctx.install_file(f"#!/bin/sh\n{header}", "/etc/init.d/old", mode=0o755)
    debian.ctx.service("old")
    assert list((debian.root / "etc/rc2.d").glob("S*old"))
    debian.ctx.service("old", enable=False)
    assert list((debian.root / "etc/rc2.d").glob("S*old")) == []


def test_setup_time_of_el6(tmp_path: Path) -> None:
    """ntpd, an init script, and the image's own chkconfig."""
    tree = tmp_path / "build/tree"
    found = image(tree, tmp_path, "centos6.10-x86_64-netboot-compute", Dnf())
    for name in ("etc/rc.d/init.d/ntpd", "usr/sbin/ntpd"):
        (found.root / name).parent.mkdir(parents=True, exist_ok=True)
        (found.root / name).write_text("#!/bin/sh\n")
    (found.root / "etc/init.d").symlink_to("rc.d/init.d")
    (found.root / "etc/ntp.conf").write_text("driftfile /d\nserver 0.centos.pool.example.org\n")
    script = '#!/bin/sh\nrm -f /etc/rc.d/rc3.d/*$1\n[ "$2" = off ] || ln -s ../init.d/$1 /etc/rc.d/rc3.d/S58$1\n'
    add_programs(found.root, "sh", "ln", "rm")
    found.ctx.install_file(script, "/sbin/chkconfig", mode=0o755)
    (found.root / "etc/rc.d/rc3.d").mkdir()
    (found.root / "bin").mkdir(exist_ok=True)
    for name in ("sh", "ln", "rm"):
        if not (found.root / "bin" / name).exists():
            shutil.copy(next(found.root.glob(f"*/**/{name}")), found.root / "bin" / name)
    found.twice("setup_time", servers=("ntp1",))
    assert found.read("etc/ntp.conf") == "server ntp1 iburst\ndriftfile /d\n"
    assert os.readlink(found.root / "etc/rc.d/rc3.d/S58ntpd") == "../init.d/ntpd"


# -- keys


def test_setup_authorized_keys(either: Image) -> None:
    either.ctx.edit("/etc/passwd", lambda text: text + "ann:x:1001:1002::/export/ann:/bin/sh\n")
    either.site("authorized_keys", "ssh-ed25519 AAAA root@mgmt\n")
    either.site("authorized_keys.ann", "ssh-ed25519 BBBB ann\n")
    root = either.what("root")
    either.twice("setup_authorized_keys", users=("root", "ann"))
    assert either.read("root/.ssh/authorized_keys") == "ssh-ed25519 AAAA root@mgmt\n"
    assert either.read("export/ann/.ssh/authorized_keys") == "ssh-ed25519 BBBB ann\n"
    wanted = {"root": root, "root/.ssh": (0o700, 0, 0), "root/.ssh/authorized_keys": (0o600, 0, 0), "export/ann": (0o755, 1001, 1002),
              "export/ann/.ssh": (0o700, 1001, 1002), "export/ann/.ssh/authorized_keys": (0o600, 1001, 1002)}  # fmt: skip
    assert {name: either.what(name) for name in wanted} == wanted
    assert "no user bob in /etc/passwd" in either.refused("setup_authorized_keys", users=("bob",))


def test_setup_authorized_keys_where_the_site_has_none(rocky: Image) -> None:
    before = rocky.look()
    assert "the site has no files/authorized_keys" in rocky.once("setup_authorized_keys")
    assert difference(before, rocky.look()) == {}


def host_keys(directory: Path, *kinds: str) -> Path:
    directory.mkdir()
    for kind in kinds:
        (directory / f"ssh_host_{kind}_key").write_text(f"private {kind}\n")
        (directory / f"ssh_host_{kind}_key.pub").write_text(f"public {kind}\n")
    return directory


def test_setup_ssh_host_keys(either: Image, tmp_path: Path) -> None:
    directory = host_keys(tmp_path / "hostkeys", "rsa", "ed25519")
    (directory / "unrelated").write_text("x")
    either.twice("setup_ssh_host_keys", directory=str(directory))
    found = sorted(path.name for path in (either.root / "etc/ssh").glob("ssh_host_*"))
    assert found == [
        "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "ssh_host_rsa_key", "ssh_host_rsa_key.pub",
    ]  # fmt: skip
    assert [either.what(f"etc/ssh/{name}") for name in found] == [(0o600, 0, 0), (0o644, 0, 0)] * 2
    assert either.read("etc/ssh/ssh_host_rsa_key") == "private rsa\n"
    assert not (either.root / "etc/ssh/unrelated").exists()


def test_setup_ssh_host_keys_refuses(rocky: Image, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"{missing} has no ssh_host_*_key" in rocky.refused("setup_ssh_host_keys", directory=str(missing))
    directory = host_keys(tmp_path / "hostkeys", "rsa")
    (directory / "ssh_host_rsa_key.pub").unlink()
    assert "no .pub beside" in rocky.refused("setup_ssh_host_keys", directory=str(directory))
    (directory / "ssh_host_rsa_key.pub").write_text("x")
    layer = Layer("shipped", SHIPPED, trusted=True)
    steps = tuple(
        Step(name, load(SHIPPED / f"{name}.py", layer), {"identity": True})
        for name in ("setup_ssh_host_keys", "cleanup")
    )
    rocky.ctx = replace(rocky.ctx, recipe=Recipe(steps, Settings()))
    assert "cleanup would remove the keys" in rocky.refused("setup_ssh_host_keys", directory=str(directory))
    rocky.ctx = replace(rocky.ctx, recipe=Recipe(steps[::-1], Settings()))
    rocky.twice("setup_ssh_host_keys", directory=str(directory))


# -- kernel and boot loader


def boots(found: Image) -> str:
    return (found.ctx.paths.tree / "kernel").read_text() + (
        found.ctx.paths.tree / "initrd-stateless.gz"
    ).read_bytes().decode("latin-1")


def test_setup_kernel(rocky: Image) -> None:
    newest = boots(rocky)
    assert newest.startswith("the second kernel\n"), "-9 was taken for newer than it is"
    rocky.twice("setup_kernel", kernelver=rpmrepo.KVER)
    assert boots(rocky).startswith("not a kernel\n")
    rocky.twice("setup_kernel")
    assert boots(rocky) == newest
    rocky.ctx = replace(
        rocky.ctx, image=OsImage(ROCKY, {**rocky.ctx.image.attributes, "kernelver": rpmrepo.KVER}, "a test")
    )
    rocky.twice("setup_kernel")
    assert boots(rocky).startswith("not a kernel\n")
    error = rocky.refused("setup_kernel", kernelver="5.14.0-99.el9.x86_64")
    assert f"no kernel 5.14.0-99.el9.x86_64 in boot or lib/modules; there is {rpmrepo.KVER}, {SECOND}" in error
    assert os.uname().release not in error


def test_setup_kernel_with_a_suffix(rocky: Image) -> None:
    rocky.twice("setup_kernel", suffix="-1.el9.x86_64")
    assert boots(rocky).startswith("not a kernel\n")
    rocky.twice("setup_kernel", kernelver="5.14.0-9", suffix=".el9.x86_64")
    assert boots(rocky).startswith("the second kernel\n")
    assert "no kernel of the image ends in '+rt'" in rocky.refused("setup_kernel", suffix="+rt")


def test_setup_kernel_without_ipv6_and_with_firmware(rocky: Image) -> None:
    rocky.twice("setup_kernel", ipv6=False, firmware="install")
    assert rocky.read("etc/modprobe.d/avs-ipv6.conf") == "options ipv6 disable=1\n"
    assert "net.ipv6.conf.all.disable_ipv6 = 1\n" in rocky.read("etc/sysctl.d/90-avs-ipv6.conf")
    assert (rocky.root / "usr/lib/firmware/x.bin").exists()
    rocky.twice("setup_kernel")
    assert not (rocky.root / "etc/modprobe.d/avs-ipv6.conf").exists()
    assert not (rocky.root / "etc/sysctl.d/90-avs-ipv6.conf").exists()


def test_setup_kernel_of_debian(debian: Image) -> None:
    assert "the image has no kernel at all" in debian.refused("setup_kernel")
    for release in ("6.1.0-9-amd64", "6.1.0-21-amd64"):
        debian.ctx.install_file(f"kernel {release}", f"/boot/vmlinuz-{release}")
        debian.ctx.install_file(f"initrd {release}", f"/boot/initrd.img-{release}")
        debian.ctx.inside(f"/lib/modules/{release}").mkdir(parents=True)
    debian.twice("setup_kernel", firmware="install")
    assert boots(debian) == "kernel 6.1.0-21-amd64initrd 6.1.0-21-amd64"
    assert "firmware-linux-free" in debian.ctx.packages()


def test_setup_grub(either: Image) -> None:
    either.twice("setup_grub", cmdline="console=ttyS0 quiet", timeout=3, serial="serial --unit=0 --speed=115200")
    values = dict(line.split("=", 1) for line in either.read("etc/default/grub").splitlines())
    assert values.get("GRUB_DEFAULT", "0") == "0"
    assert values["GRUB_TIMEOUT"] == "3"
    assert values["GRUB_CMDLINE_LINUX"] == '"console=ttyS0 quiet"'
    assert values["GRUB_SERIAL_COMMAND"] == '"serial --unit=0 --speed=115200"'
    assert len(values) == len(either.read("etc/default/grub").splitlines()), "a key is there twice"
    either.once("setup_grub", packages=("extra-one",))
    assert "extra-one" in either.ctx.packages()
    assert "is read by a shell" in either.refused("setup_grub", packages=("extra-one",), cmdline="$(reboot)")


# -- all of them


RECIPE = """
[setup_sshd]
check = no                     # that of these rpms is none
use_dns = no
[setup_ssh_host_keys]
directory = {keys}
[setup_time]
servers = ntp1.example.com ntp2.example.com
[setup_additional_packages]
packages = extra-one
[setup_grub]
cmdline = console=ttyS0 quiet
[setup_kernel]
kernelver = {kernel}
ipv6 = no
[build_prep]
timezone = Europe/Warsaw
"""


def test_image_by_a_recipe_of_them_all(installation: Installation, rpm_repository: Path, tmp_path: Path) -> None:
    pkglist = tmp_path / "pkglist"
    pkglist.write_text("filesystem setup bash kernel-core kernel-second dnf selinux-policy tzdata\n")
    installation.define(PROFILE, pkgdir=str(rpm_repository), pkglist=str(pkglist))
    # The small rpms have no daemon that sets up a network; what is of Debian is no step of theirs.
    without = ("setup_ssh_host_keys", "setup_network", "setup_apt_sources")
    names = sorted(path.stem for path in SHIPPED.glob("setup_*.py") if path.stem not in without)
    steps = ["prepare_image_directory", "generate_image", "build_prep", *names, "cleanup", "setup_ssh_host_keys"]
    keys = host_keys(tmp_path / "hostkeys", "rsa")
    installation.recipe(*steps, more=RECIPE.format(keys=keys, kernel=rpmrepo.KVER))
    installation.site_file("files/authorized_keys", "ssh-ed25519 AAAA root@mgmt\n")
    assert [step["name"] for step in installation.run("steps", PROFILE, "--json").document["steps"]] == steps
    created = installation.run("create", PROFILE)
    assert [name for name in steps if name not in created.stdout] == []
    before = installation.youngest()
    root = installation.tree() / "rootimg"
    assert (installation.tree() / "kernel").read_bytes() == b"not a kernel\n"
    for name in ("chronyd", "nrpe", "gmond", "sshd", "autofs"):
        assert (root / WANTS / f"{name}.service").is_symlink(), name
    assert (root / "etc/ssh/ssh_host_rsa_key").read_text() == "private rsa\n"
    assert (root / "root/.ssh/authorized_keys").exists()
    assert "no new revision" in installation.run("create", PROFILE).stdout
    assert installation.youngest() == before
