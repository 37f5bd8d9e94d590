"""dnf --installroot: EL 8 and later, Fedora."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import (
    DEFAULT_INSTALL_OPTIONS,
    SOURCE_DATE_EPOCH,
    InstallOptions,
    Job,
    directories,
    explain_unknown,
    list_files,
    package_set,
    reproducible_initrds,
    rpm_database,
)
from xcat_avs.system import mounts
from xcat_avs.system.chroot import chroot_mounts

UNKNOWN = re.compile(
    r"(?:No match for argument: |Unable to find a match: |Module or Group ')([^'\n]+?)'?(?: is not available\.)?$",
    re.MULTILINE,
)
SCRIPTLET = re.compile(r"^.*(?:scriptlet failed|Error in \S+ scriptlet).*$", re.MULTILINE)
HOST_REPOSITORIES = Path("/etc/yum.repos.d")
# Histories in which package managers note times, process numbers and command lines of each run.
HISTORIES = ("var/lib/dnf/history.sqlite*", "var/lib/dnf/repos", "usr/lib/sysimage/libdnf5/transaction_history.sqlite*",
             "var/lib/yum/history/*", "var/lib/yum/yumdb/*", "var/lib/yum/uuid")  # fmt: skip
# Mount points that are covered while scripts of packages run; the owning package expects them.
ROOT = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755}
# Paths in a configuration file are taken below the root: "../../" keeps cache and logs out of the image.
MAIN = """[main]
cachedir=../../work/cache
logdir=../../work/log
persistdir=../../work/persist
varsdir=
pluginpath=
pluginconfpath=
plugins=False
install_weak_deps=False
protected_packages=
metadata_expire=0
best=True
skip_if_unavailable=False
"""


class Dnf:
    """The host's dnf without the host's configuration, except its repositories where pkgdir is unset."""

    name = "dnf"

    def __init__(self, install_options: InstallOptions = DEFAULT_INSTALL_OPTIONS) -> None:
        self.install_options = install_options

    def programs(self) -> tuple[str, ...]:
        return ("dnf", "rpm")

    def identity(self) -> str:
        return self.name + self.install_options.identity()

    def generate(self, job: Job, more: Sequence[str] = ()) -> None:
        """more: packages besides those of the definition."""
        packages = package_set(job.image)
        if not packages.include:
            lists = ", ".join(map(str, list_files(job.image)))
            raise AvsError(f"{job.image.name}: {lists} names no package")
        excludes = [f"--exclude={name}" for name in packages.exclude]
        names = [name for name in more if name not in packages.exclude]
        for name, mode in ROOT.items():
            (job.root / name).mkdir(mode, exist_ok=True)
        self._dnf(job, [*excludes, "install", *names, *packages.include], packages.environment)

    def install(self, job: Job, names: Sequence[str]) -> None:
        self._dnf(job, ["install", *names], {})

    def remove(self, job: Job, names: Sequence[str]) -> None:
        self._dnf(job, ["remove", *names], {})

    def upgrade(self, job: Job) -> None:
        self._dnf(job, ["upgrade"], {})

    def _dnf(self, job: Job, words: Sequence[str], environment: dict[str, str]) -> None:
        # dnf wants the real path of the root, and keeps its data in ROOT/../../work.
        root = job.root.resolve()
        work = job.work
        mounts.remove_tree(work)
        (work / "home").mkdir(parents=True, mode=0o700)
        try:
            # rpm of Debian puts the database below $HOME; a macro there says otherwise.
            (work / "home/.rpmmacros").write_text(
                "%_dbpath /var/lib/rpm\n" + macros(self.install_options), encoding="ascii"
            )
            (work / "dnf.conf").write_text(
                MAIN + flags(self.install_options) + _repositories(job.image), encoding="utf-8"
            )
            env = {**environment, "HOME": str(work / "home"), "TMPDIR": str(work), "DNF_DISABLE_ALIASES": "1",
                   "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}  # fmt: skip
            arch = {"ppc64el": "ppc64le", "amd64": "x86_64", "arm64": "aarch64"}.get(job.image.osarch, job.image.osarch)
            argv = ["dnf", "-y", "--config", str(work / "dnf.conf"), "--installroot", str(root),
                    "--releasever", job.image.version.major, "--forcearch", arch, *self.install_options.arguments, *words]  # fmt: skip
            try:
                with chroot_mounts(root), reproducible_initrds(root):
                    job.runner.run(argv, env=env)
            except CommandError as err:
                raise explain_unknown(job, job.log, UNKNOWN, err) from None
            warn_of_scripts(job)
        finally:
            mounts.remove_tree(work)
        settle(job.root)


def settle(root: Path) -> None:
    """Remove what differs from build to build: histories, and the write-ahead files of the database, merged into it."""
    database = rpm_database(root)
    if database and (root / database / "rpmdb.sqlite").is_file():
        connection = sqlite3.connect(root / database / "rpmdb.sqlite")
        connection.execute("pragma journal_mode=DELETE")
        connection.close()
        (root / database / ".rpm.lock").unlink(missing_ok=True)
    for pattern in HISTORIES:
        for path in root.glob(pattern):
            mounts.remove_tree(path)


def macros(install_options: InstallOptions) -> str:
    """Lines of ~/.rpmmacros: which languages rpm installs."""
    return f"%_install_langs {':'.join(install_options.locales)}\n" if install_options.locales else ""


def flags(install_options: InstallOptions) -> str:
    """Lines for [main] of dnf.conf or yum.conf: what rpm leaves out."""
    return "" if install_options.docs else "tsflags=nodocs\n"


def repositories(image: OsImage) -> list[tuple[str, str]]:
    """The repositories of a definition, each with a name and its URL. Raises AvsError for a pkgdir that holds none."""
    found = []
    for attribute in ("pkgdir", "otherpkgdir"):
        for number, item in enumerate(directories(image, attribute)):
            name = f"avs-{attribute}-{number}"
            if "://" in item:
                found.append((name, item))
            elif (Path(item) / "repodata/repomd.xml").is_file():
                found.append((name, Path(item).resolve().as_uri()))
            elif attribute == "pkgdir" or list(Path(item).glob("*/repodata/repomd.xml")):
                found += _below(Path(item), name, image.name)
            # else: xCAT sets otherpkgdir for every image, mostly to a directory that is not there
    return found


def sections(found: Sequence[tuple[str, str]]) -> str:
    """Repositories as dnf and yum read them."""
    return "\n".join(f"[{name}]\nname={name}\nbaseurl={url}\nenabled=1\n" for name, url in found)


def _repositories(image: OsImage) -> str:
    """The repositories of a definition, or else of the host."""
    text = sections(repositories(image))
    if directories(image, "pkgdir"):
        return "reposdir=\ngpgcheck=False\n" + text
    if list(HOST_REPOSITORIES.glob("*.repo")):
        return f"reposdir={HOST_REPOSITORIES}\n" + text
    raise AvsError(
        f"{image.name} names no pkgdir, and this machine has no repositories in {HOST_REPOSITORIES}; set pkgdir in {image.origin}"
    )


def _below(directory: Path, name: str, image: str) -> list[tuple[str, str]]:
    """The repositories of a copied installation medium: BaseOS and AppStream each have their own."""
    found = [path.parent.parent for path in sorted(directory.glob("*/repodata/repomd.xml"))]
    if not found:
        raise AvsError(
            f"{image}: pkgdir {directory} holds no repository (no repodata/repomd.xml in it or right below it); run createrepo_c there"
        )
    return [(f"{name}-{path.name}", path.resolve().as_uri()) for path in found]


def warn_of_scripts(job: Job) -> None:
    """Warn of failed scripts of packages, after which the package manager still exits with 0."""
    for match in SCRIPTLET.finditer(job.log.read_text(encoding="utf-8", errors="replace")):
        job.warn(match.group().strip())
