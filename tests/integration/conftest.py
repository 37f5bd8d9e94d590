"""Fixtures of the integration tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rpmrepo

from integration.harness import ARCH, Installation, osimage_name, output

NEEDED = ("fsvs", "svn", "svnadmin", "svnmucc", "svnlook", "ostree", "cpio")
ENGINES = ("fsvs", "ostree")
both = pytest.mark.parametrize("installation", ENGINES, indirect=True)  # for tests that say what every store has to do
# Nobody has these ids on the machine that runs the tests.
UID, GID = 61234, 61235


@pytest.fixture(autouse=True)
def _can_build() -> None:
    """These tests build and mount for real."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def installation(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """An installation of its own; a test that leaves a mount or a process behind fails."""
    made = Installation(tmp_path / "site", engine=getattr(request, "param", "fsvs"))
    yield made
    left = made.close()
    assert not left, f"left behind: {left}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small rootimgdir with one of everything that FSVS keeps."""
    return make_source(tmp_path / "source")


def make_source(top: Path) -> Path:
    root = top / "rootimg"
    for name in ("bin", "dev", "etc/ssh", "home", "proc", "sys", "run", "usr/bin", "usr/share", "var/log", "empty"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/os-release").write_text('ID="rocky"\nVERSION_ID="9.4"\n')
    (root / "usr/bin/su").write_bytes(b"\x7fELF not really")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "usr/bin/wall").write_bytes(b"#!/bin/sh\n")
    os.chown(root / "usr/bin/wall", 0, GID)
    (root / "usr/bin/wall").chmod(0o2755)
    os.mknod(root / "dev/console", 0o20600, os.makedev(5, 1))
    os.mknod(root / "dev/sda", 0o60660, os.makedev(8, 0))
    os.chown(root / "dev/sda", 0, GID)
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    (root / "etc/dangling").symlink_to("/nowhere/at all")
    os.chown(root / "etc/dangling", UID, GID, follow_symlinks=False)
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    (root / "home/unknown").write_text("owned by nobody here\n")
    os.chown(root / "home/unknown", UID, GID)
    share = root / "usr/share"
    for name in (
        "Główny zażółć 日本語",
        "a b  c",
        "at@rev",
        "100%41",
        'it\'s "quoted"',
        "back\\slash",
        "-dash",
        "#hash",
        "q?*[x]",
    ):
        (share / name).write_text(f"{name}\n")
    (share / "dir with space@5").mkdir()
    (share / "dir with space@5/file").write_text("x")
    (share / "zero").write_bytes(b"")
    (share / "secret").write_text("s")
    (share / "secret").chmod(0)
    (top / "kernel").write_bytes(b"kernel of the source\n")
    (top / "initrd-stateless.gz").write_bytes(b"initrd of the source\n")
    stamp = 1_600_000_000_123_456_000
    for directory, names, files in os.walk(top, topdown=False):
        for name in [*names, *files]:
            stamp += 1_000_001_000
            os.utime(os.path.join(directory, name), ns=(stamp, stamp), follow_symlinks=False)
    os.utime(top, ns=(stamp, stamp))
    return top


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that the first worker that needs it makes, and all use; none may change it."""
    own = factory.getbasetemp()
    top = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    with open(top / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (top / name).exists():
            made = top / f"{name}.new"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make(made)
            made.rename(top / name)
    return top / name


@pytest.fixture(scope="session")
def small_debian_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `create` makes by mmdebstrap of a minimal Debian 12: rootimg, and the log of the step that generates it.

    It has ssh, chrony and less, patch by a procedure, of documentation and languages only what avs.conf asks for, and no
    source of packages. Not to be changed.
    """
    if shutil.which("mmdebstrap") is None:
        pytest.skip("not installed: mmdebstrap")
    if output(["dpkg", "--print-architecture"]) != "amd64\n":
        pytest.skip(f"the image is of {ARCH}")
    return shared(tmp_path_factory, "small-debian", make_small_debian)


def make_small_debian(top: Path) -> None:
    osvers, profile = "debian12", "small"
    site = Installation(top / "site")
    pkglist = site.top / "small.pkglist"
    pkglist.write_text("openssh-server chrony tzdata mount less\n")
    site.define(profile, osvers, pkglist=str(pkglist))
    arguments = "-oAcquire::Retries=2"
    site.configure("image", install_docs="no", install_locales="de", package_manager_args=arguments)
    text = '"""Add a package"""\n\n\ndef run(ctx):\n    ctx.install_packages("patch")\n'
    site.site_file("procedures/debian/more.py", text)
    # What is looked at is the tree; the last step spares the time of a commit.
    site.site_file("procedures/debian/stop.sh", "#!/bin/sh\nexit 9\n", 0o755)
    site.recipe("prepare_image_directory", "generate_image", "more", "stop", profile=profile)
    result = site.finish(site.start("create", profile), 400)  # seconds, from a mirror on a busy machine
    assert "step stop failed" in result.error, str(result)
    left = site.close()
    assert not left, f"left behind: {left}"
    root = (site.tree(profile, osvers) / "rootimg").rename(top / "rootimg")
    (site.logs / osimage_name(profile, osvers) / "generate_image.log").rename(top / "generate_image.log")
    shutil.rmtree(site.top)
    for pattern in ("var/cache/apt/**/*.*", "var/lib/apt/lists/*_*", "etc/apt/sources.list.d/*"):
        for path in root.glob(pattern):
            path.unlink()
    (root / "etc/apt/sources.list").write_text("")


@pytest.fixture(scope="session")
def small_debian(small_debian_build: Path) -> Path:
    """The rootimg of it."""
    return small_debian_build / "rootimg"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small rpms, with a package whose script fails."""
    for program in ("dnf", "rpm", "rpmbuild", "createrepo_c"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    failing = '%post -p <lua>\nerror("the scriptlet is broken")\n'
    return rpmrepo.build_repo(
        tmp_path_factory.mktemp("rpms"),
        [
            rpmrepo.Package(
                "bad-scriptlet", {"/usr/share/bad": b"x\n"}, tags="Requires(post): filesystem", scripts=failing
            ),
            rpmrepo.Package("site-repos", {"/etc/yum.repos.d/vendor.repo": b"[vendor]\n"}, tags="Requires: filesystem"),
        ],
    )


@pytest.fixture(scope="session")
def other_repository(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A second one, as otherpkgdir, with packages that the first has not."""
    other = tmp_path_factory.mktemp("other") / "post"
    rpms = rpmrepo.build_repo(
        tmp_path_factory.mktemp("other-build"),
        [rpmrepo.Package("site-tool", {"/usr/bin/site-tool": b"#!/bin/sh\n"}, tags="Requires: filesystem")],
    )
    other.mkdir()
    shutil.copy(next(rpms.glob("site-tool-*.rpm")), other)
    import subprocess

    subprocess.run(["createrepo_c", "-q", str(other)], check=True, timeout=60)
    return other
