"""The add-ons that are shipped, on a Debian and an EL tree, from small packages of the names that they install."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import debrepo
import pytest
import rpmrepo
from harness import mounts_below

from integration.harness import copy, difference, marks
from xcat_avs.build import addons
from xcat_avs.build.context import BuildContext
from xcat_avs.build.job import BuildJob
from xcat_avs.build.markers import AddonResult
from xcat_avs.build.paths import BuildPaths
from xcat_avs.build.plan import planned_addons
from xcat_avs.build.steps import StepFailed
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.generate import Generator, Job
from xcat_avs.generate.dnf import Dnf
from xcat_avs.generate.mmdebstrap import Mmdebstrap
from xcat_avs.recipes.procedure import Layer, find
from xcat_avs.recipes.recipe import ADDON_OPTIONS, Recipe, Step
from xcat_avs.settings import Settings
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, scan

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).resolve().parents[2] / "xcat_avs/addons/common"
DEBIAN, ROCKY = "debian12-x86_64-netboot-compute", "rocky9.4-x86_64-netboot-compute"
KERNEL, OTHER = "6.1.0-1-amd64", "9.9.9-not-of-the-image"
WANTS = "etc/systemd/system/multi-user.target.wants"
UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
MONGOD = "storage:\n  dbPath: /var/lib/mongo\nnet:\n  port: 27017\n  bindIp: 127.0.0.1\n"
DKMS = """#!/bin/sh
[ "$1 $2" = "autoinstall -k" ] || exit 2
for source in /usr/src/dkms/*; do
    mkdir -p "/lib/modules/$3/updates/dkms" && : >"/lib/modules/$3/updates/dkms/${source##*/}.ko" || exit
done
"""
MAKE = """#!/bin/sh
# make -C DIRECTORY M=SOURCE TARGET
case "$2 $4" in "/lib/modules/6.1.0-1-amd64/build modules") : >"${3#M=}/chos.ko" ;; *clean) ;; *) exit 2 ;; esac
"""
# package -> its services
SERVICES = {
    "libvirt-daemon-system": ("libvirtd",), "libvirt": ("libvirtd",), "docker.io": ("docker",), "docker-ce": ("docker",), "autofs": ("autofs",),
    "podman": ("podman",), "opensm": ("opensm",), "mlnx-ofed-basic": ("openibd",), "mongodb-org": ("mongod",), "rpcbind": ("rpcbind",),
    "zfs": ("zfs-import-scan", "zfs-mount"), "zfsutils-linux": ("zfs-import-scan", "zfs-mount"), "xCATsn": ("xcatd",), "xcatsn": ("xcatd",),
}  # fmt: skip
FILES = {
    "mongodb-org": {"/etc/mongod.conf": MONGOD}, "environment-modules": {"/etc/environment-modules/modulespath": "/usr/share/modules\n"},
    "dkms": {"/usr/sbin/dkms": DKMS}, "make": {"/usr/bin/make": MAKE}, "xCATsn": {"/etc/xcat/site.sqlite": "of the build host"},
    "xcatsn": {"/etc/xcat/site.sqlite": "of the build host"}, "podman": {"/usr/lib/systemd/system/podman.socket": UNIT},
    "zfs": {"/usr/lib/systemd/system/zfs.target": UNIT, "/usr/lib/systemd/system/zfs-import.target": UNIT},
    "zfsutils-linux": {"/usr/lib/systemd/system/zfs.target": UNIT, "/usr/lib/systemd/system/zfs-import.target": UNIT},
}  # fmt: skip
PLAIN = (
    "rsync",
    "mt-st",
    "mtx",
    "lsscsi",
    "fuse-overlayfs",
    "slirp4netns",
    "cvmfs",
    "rdma-core",
    "infiniband-diags",
    "perftest",
)
DEBS = ("sg3-utils", "qemu-system-x86", "qemu-utils", "libvirt-clients", "ibverbs-utils", "ibverbs-providers", "gcc",
        "lustre-client-utils")  # fmt: skip
RPMS = ("sg3_utils", "qemu-kvm", "qemu-img", "virt-install", "docker-ce-cli", "containerd.io", "libibverbs", "libibverbs-utils",
        "lustre-client", "lustre", "lustre-osd-ldiskfs-mount")  # fmt: skip
# package -> the modules that it builds by dkms, or brings
BUILT = {"zfs-dkms": ("zfs",), "lustre-client-modules-dkms": ("lustre", "lnet")}
MODULES = {
    "kmod-zfs": ("zfs",), "kmod-lustre-client": ("lustre", "lnet"), "kmod-lustre": ("lustre", "lnet", "ko2iblnd"),
    "kmod-lustre-osd-ldiskfs": ("osd_ldiskfs",), "kernel-modules-ib": ("ib_ipoib", "rdma_ucm"),
}  # fmt: skip
MOFED = ("mlx_compat", "mlx5_core", "ib_core")


def unit_files(name: str) -> dict[str, str]:
    return {f"/usr/lib/systemd/system/{unit}.service": UNIT for unit in SERVICES.get(name, ())}


def modules(release: str, names: tuple[str, ...]) -> dict[str, str]:
    return {f"/lib/modules/{release}/extra/{name}.ko": "" for name in names}


def all_files(name: str) -> dict[str, str]:
    return {f"/usr/share/avs-test/{name}": name, **unit_files(name), **FILES.get(name, {})}


def debs() -> list[debrepo.Package]:
    names = [*PLAIN, *DEBS, *(name for name in (*SERVICES, *FILES) if name == name.lower()), "unfs3"]
    found = {}
    for name in dict.fromkeys(names):
        units = {"/usr/lib/systemd/system/unfs3.service": UNIT} if name == "unfs3" else {}
        postinst = {"postinst": f"#!/bin/sh\necho ran >/var/lib/{name}.post\n"}
        found[name] = debrepo.Package(name, {**all_files(name), **units}, scripts=postinst)
    found["mlnx-ofed-basic"] = debrepo.Package(
        "mlnx-ofed-basic", {**all_files("mlnx-ofed-basic"), **modules(KERNEL, MOFED)}
    )
    for name, built in BUILT.items():
        sources = {f"/usr/src/dkms/{module}": "" for module in built}
        found[name] = debrepo.Package(name, sources, fields="Depends: dkms\n")
    found["broken-dkms"] = debrepo.Package("broken-dkms", {"/usr/share/avs-test/broken": "x"}, fields="Depends: dkms\n")
    return list(found.values())


def rpms() -> list[rpmrepo.Package]:
    names = [
        *PLAIN,
        *RPMS,
        *(name for name in (*SERVICES, *FILES) if name not in ("docker.io", "xcatsn", "zfsutils-linux")),
        "unfs3",
    ]
    found = []
    for name in dict.fromkeys(names):
        units = {"/usr/lib/systemd/system/unfsd.service": UNIT} if name == "unfs3" else {}
        extra = modules(rpmrepo.KVER, MOFED) if name == "mlnx-ofed-basic" else {}
        post = f'%post -p <lua>\nio.open("/var/lib/{name}.post", "w"):write("ran\\n"):close()\n'
        entries = {path: text.encode() for path, text in {**all_files(name), **units, **extra}.items()}
        found.append(
            rpmrepo.Package(name, entries, tags="Requires: filesystem\nRequires(post): filesystem", scripts=post)
        )
    for name, there in MODULES.items():
        entries = {path: text.encode() for path, text in modules(rpmrepo.KVER, there).items()}
        found.append(rpmrepo.Package(name, entries, tags="Requires: filesystem"))
    wrong = {path: text.encode() for path, text in modules(OTHER, ("zfs",)).items()}
    found.append(rpmrepo.Package("kmod-zfs-other", wrong, tags="Requires: filesystem"))
    return found


@dataclass
class Image:
    """A base tree, and what builds add-ons on it."""

    ctx: BuildContext
    repository: Path
    base: Any

    @property
    def deb(self) -> bool:
        return self.ctx.image.version.packages == "deb"

    def build(self, name: str, **options: Any) -> tuple[Path, AddonResult]:
        """Build an add-on; returns where it is stored, and its result."""
        found = find(name, [Layer("shipped", SHIPPED, trusted=True)])
        assert options.keys() <= found.options.keys()
        default = {item.name: item.default for item in {**ADDON_OPTIONS, **found.options}.values()}
        if "repository" in default:
            default["repository"] = str(self.repository)
        step = Step(name, found, {**default, **options})

        ctx, recipe = self.ctx, Recipe((), Settings(), (), (step,))
        job = BuildJob(ctx.image, recipe, ctx.generator, None, ctx.paths, ctx.installdir, ctx.progress)
        result: list[AddonResult] = []
        try:
            addons.run_addons(job, planned_addons(job, "0" * 64), result)
        finally:
            assert mounts_below(self.ctx.paths.tree.parent) == []
            assert difference(self.base, marks(self.ctx.root)) == {}, "the base was changed"
        return self.ctx.paths.tree / "addons" / name, result[0]


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def refuse(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def make_image(top: Path, name: str, generator: Generator, repository: Path, attributes: dict[str, str]) -> Image:
    root = top / "build/tree/rootimg"
    if name == ROCKY:
        root.mkdir(parents=True)
        root.chmod(0o755)
        generator.generate(Job(OsImage(name, attributes, "a test"), root, Runner(top / "log"), refuse))
    else:
        (root / f"lib/modules/{KERNEL}/kernel").mkdir(parents=True)
        (root / f"lib/modules/{KERNEL}/build").symlink_to("/usr/src/headers")
        (root / f"boot/vmlinuz-{KERNEL}").write_text("kernel")
        (root / "usr/src/headers").mkdir()
    paths = BuildPaths(root.parent, top / "build/results", top / "build/logs")
    for directory in (paths.results, paths.logs):
        directory.mkdir()
    procedure = find("kvm", [Layer("shipped", SHIPPED, trusted=True)])
    ctx = BuildContext(OsImage(name, attributes, "a test"), Recipe((), Settings()), {}, top / "install", paths, top / "log", generator, None,
                       Progress(io.StringIO()), procedure)  # fmt: skip
    return Image(ctx, repository, marks(root))


@pytest.fixture(scope="module", autouse=True)
def _machine_is_left_alone() -> Iterator[None]:
    before = scan.scan("/etc", ["fsvs"])
    yield
    assert manifest.compare(before, scan.scan("/etc", ["fsvs"]), times=True) == []


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, small_debian: Path) -> Iterator[Image]:
    need("mmdebstrap", "dpkg-deb", "depmod", "systemctl")
    top = tmp_path_factory.mktemp("debian")
    debrepo.build_repo(top / "repo", top / "debs", debs())
    (top / "build/tree").mkdir(parents=True)
    copy(small_debian, top / "build/tree/rootimg")
    yield make_image(top, DEBIAN, Mmdebstrap(), top / "repo", {})
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def rocky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    need("dnf", "rpm", "rpmbuild", "createrepo_c", "depmod", "systemctl")
    top = tmp_path_factory.mktemp("rocky")
    base = rpmrepo.build_repo(top / "base")
    own = rpmrepo.build_repo(top / "own", rpms())
    (top / "pkglist").write_text("filesystem setup bash kernel-core\n")
    yield make_image(top, ROCKY, Dnf(), own, {"pkglist": str(top / "pkglist"), "pkgdir": str(base)})
    shutil.rmtree(top)


@pytest.fixture(params=["debian", "rocky"])
def either(request: pytest.FixtureRequest) -> Image:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Image)
    return found


@dataclass(frozen=True)
class Case:
    """An add-on: its options, the packages that it installs, and what it has to hold: path to a part of its text."""

    name: str
    options: dict[str, Any]
    debs: tuple[str, ...]
    rpms: tuple[str, ...]
    files: dict[str, str]
    services: tuple[str, ...] = ()


CASES = [
    Case("backuputils", {}, ("rsync", "mt-st", "mtx", "lsscsi", "sg3-utils"), ("rsync", "mt-st", "mtx", "lsscsi", "sg3_utils"), {}),
    Case("environment_modules", {"modulepath": ("/cluster/modules",)}, ("environment-modules",), ("environment-modules",),
         {"etc/environment-modules/modulespath": "/usr/share/modules\n/cluster/modules\n"}),
    Case("kvm", {"nested": True}, ("libvirt-daemon-system", "qemu-system-x86"), ("qemu-kvm", "libvirt"),
         {"etc/modprobe.d/avs-kvm.conf": "kvm_intel nested=1"}, ("libvirtd",)),
    Case("docker", {"data_root": "/scratch/docker"}, ("docker.io",), ("docker-ce", "containerd.io"),
         {"etc/docker/daemon.json": '"data-root": "/scratch/docker"'}, ("docker",)),
    Case("podman", {"socket": True, "graphroot": "/scratch/c"}, ("podman",), ("podman", "fuse-overlayfs"),
         {"etc/containers/storage.conf": 'graphroot = "/scratch/c"', "etc/systemd/system/multi-user.target.wants/podman.socket": UNIT}),
    Case("cvmfs", {"repositories": ("atlas.example.org", "x.example.org"), "proxy": "http://squid:3128"}, ("cvmfs", "autofs"), ("cvmfs", "autofs"),
         {"etc/cvmfs/default.local": "CVMFS_REPOSITORIES=atlas.example.org,x.example.org\nCVMFS_HTTP_PROXY='http://squid:3128'\n",
          "etc/auto.master.d/cvmfs.autofs": "/cvmfs /etc/auto.cvmfs\n", "etc/fuse.conf": "user_allow_other\n"}, ("autofs",)),
    Case("lustre_client", {"networks": "o2ib0(ib0)"}, ("lustre-client-modules-dkms", "lustre-client-utils"), ("lustre-client", "kmod-lustre-client"),
         {"etc/modprobe.d/lustre.conf": 'networks="o2ib0(ib0)"'}),
    Case("ofed", {"opensm": True}, (), ("rdma-core", "perftest", "opensm"), {"etc/modules-load.d/avs-ofed.conf": "ib_ipoib\n"}, ("opensm",)),
    Case("mlnx_ofed", {}, ("mlnx-ofed-basic",), ("mlnx-ofed-basic",), {}, ("openibd",)),
    Case("zfs", {"arc_max": 1000000}, ("zfs-dkms", "zfsutils-linux", "dkms"), ("kmod-zfs", "zfs"),
         {"etc/modprobe.d/avs-zfs.conf": "zfs_arc_max=1000000"}, ("zfs-import-scan", "zfs-mount")),
    Case("mongodb", {"dbpath": "/data/db", "bind_ip": "0.0.0.0"}, ("mongodb-org",), ("mongodb-org",),
         {"etc/mongod.conf": "storage:\n  dbPath: /data/db\nnet:\n  port: 27017\n  bindIp: 0.0.0.0\n"}, ("mongod",)),
    Case("unfs", {"exports": ("/scratch:10.0.0.0/8:rw+no_root_squash",)}, ("unfs3", "rpcbind"), ("unfs3", "rpcbind"),
         {"etc/exports": "/scratch 10.0.0.0/8(rw,no_root_squash)\n"}, ("rpcbind",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_addon(either: Image, case: Case) -> None:
    options = dict(case.options)
    if case.name == "ofed":
        # Their modules are in the distribution's own kernel, which these trees have not got.
        options.update({"modules": ()} if either.deb else {"packages": ("rdma-core", "perftest", "kernel-modules-ib")})
    stored, result = either.build(case.name, **options)
    listed = (stored / "packages").read_text().splitlines()
    assert listed[0] == f"#packages {'deb' if either.deb else 'rpm'}"
    added = [line.split("\t")[1] for line in listed[1:] if line.startswith("+")]
    expected = case.debs if either.deb else case.rpms
    assert set(expected) <= set(added)
    assert (result.packages_added, result.packages_removed) == (len(added), 0)
    root = stored / "rootimg"
    for name in expected:
        if (root / f"usr/share/avs-test/{name}").exists():
            assert (root / f"var/lib/{name}.post").exists() or name == "mlnx-ofed-basic", (
                f"the script of {name} did not run"
            )
    for path, text in case.files.items():
        if not (either.deb and case.name == "ofed"):
            assert text in (root / path).read_text() if not (root / path).is_symlink() else (root / path).is_symlink()
    for service in case.services:
        assert (root / WANTS / f"{service}.service").is_symlink()
    # Nothing of where the packages came from, and no caches.
    assert list(root.glob(".avs-lent*")) == []
    assert not (root / "etc/apt/sources.list.d/avs-lent.list").exists()
    assert list(root.glob("var/cache/**/*.deb")) + list(root.glob("var/lib/apt/lists/*_*")) == []
    database = root / ("var/lib/dpkg/status" if either.deb else "var/lib/rpm")
    assert database.exists()
    assert list(root.glob("var/lib/rpm/*-wal")) + list(root.glob("var/lib/rpm/*-shm")) == []


def test_modules_are_of_the_kernel_of_the_image(either: Image) -> None:
    release = KERNEL if either.deb else rpmrepo.KVER
    assert os.uname().release != release
    stored, _ = either.build("zfs")
    lists = list((stored / "rootimg").glob("**/modules.dep"))
    assert [path.parent.name for path in lists] == [release]
    assert "zfs.ko" in lists[0].read_text()


def test_no_module_for_the_kernel(rocky: Image, debian: Image) -> None:
    with pytest.raises(StepFailed, match=f"add-on zfs failed: there is no module zfs for kernel {rpmrepo.KVER}"):
        rocky.build("zfs", packages=("kmod-zfs-other", "zfs"))
    with pytest.raises(StepFailed, match=f"there is no module zfs for kernel {KERNEL}"):
        debian.build("zfs", packages=("broken-dkms",))


def test_lustre_server(rocky: Image, debian: Image) -> None:
    stored, _ = rocky.build("lustre_server", networks="tcp0(eth0)")
    assert (stored / f"rootimg/usr/lib/modules/{rpmrepo.KVER}/extra/osd_ldiskfs.ko").exists()
    rocky.build("lustre_server", ofed="24.10")
    with pytest.raises(StepFailed, match="add-on lustre_server failed: Lustre's servers are only packaged for EL"):
        debian.build("lustre_server")
    # With a version it asks the project's own repository, which is not there.
    with pytest.raises(StepFailed) as caught:
        rocky.build("lustre_server", repository="", version="2.15.4", ofed="24.10", base="file:///nowhere")
    assert "nowhere/lustre/lustre-2.15.4-ib/MOFED-24.10/el9.4/server" in Path(caught.value.log or "").read_text()


def test_xcat(either: Image) -> None:
    stored, _ = either.build("xcat", core=str(either.repository))
    root = stored / "rootimg"
    assert (root / "etc/xCATSN").read_text() == ""
    assert not (root / "etc/xcat/site.sqlite").exists()
    assert (root / WANTS / "xcatd.service").is_symlink()


def test_chos(debian: Image) -> None:
    with pytest.raises(
        StepFailed, match=r"add-on chos failed: \[addon chos\] source = chos: there is no such directory"
    ):
        debian.build("chos")
    source = debian.ctx.installdir / "custom/avs/files/chos"
    source.mkdir(parents=True)
    (source / "Makefile").write_text("obj-m := chos.o\n")
    stored, _ = debian.build("chos", environments=("sl6:/chroot/sl6",))
    root = stored / "rootimg"
    assert (root / f"usr/lib/modules/{KERNEL}/extra/chos.ko").exists()
    assert "chos.ko" in (root / f"usr/lib/modules/{KERNEL}/modules.dep").read_text()
    assert (root / "etc/modules-load.d/avs-chos.conf").read_text() == "chos\n"
    assert "sl6:/chroot/sl6\n" in (root / "etc/chos.conf").read_text()
    assert not (root / "usr/src/avs-module").exists()
    with pytest.raises(StepFailed, match=r"made no module other\.ko"):
        debian.build("chos", module="other")
    shutil.rmtree(source)


def test_needs_a_version_or_a_repository(either: Image) -> None:
    with pytest.raises(StepFailed, match=r"add-on mlnx_ofed failed: \[addon mlnx_ofed\] needs version, or repository"):
        either.build("mlnx_ofed", repository="")


def test_directory_that_is_no_repository(either: Image, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"no (Debian )?repository"):
        either.build("backuputils", repository=str(tmp_path))


def test_every_shipped_one_is_tested() -> None:
    tested = {case.name for case in CASES} | {"lustre_server", "xcat", "chos"}
    assert {path.stem for path in SHIPPED.glob("*.py")} == tested
