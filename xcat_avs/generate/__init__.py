"""Generators fill an empty root from package repositories; one module each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Protocol

from xcat_avs.definitions import exlist, includes, pkglist
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.system.runner import Runner
from xcat_avs.tree import kernels, packages

variables = includes.variables
KERNEL, INITRD, newest_kernel = kernels.KERNEL, kernels.INITRD, kernels.newest_kernel
rpm_database = packages.rpm_database
# Programs of a build write this time instead of the clock's, so that the same inputs give the same tree.
SOURCE_DATE_EPOCH = "1000000000"
LISTS = ("pkglist", "otherpkglist", "exlist")
# A newer dracut reads here that it is to make the same initrd of the same files.
DRACUT_SETTING = "etc/dracut.conf.d/avs-reproducible.conf"


@dataclass(frozen=True)
class InstallOptions:
    """How packages are installed into an image, as avs.conf sets it. locales: languages to keep, () for all.

    arguments: further arguments of the package manager. base: the list of packages that rinse unpacks first.
    """

    docs: bool = True
    locales: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    base: Optional[Path] = None

    def identity(self) -> str:
        """The part of a generator's identity that these options add; "" for the defaults."""
        found = [] if self.docs else ["without documentation"]
        found += [f"languages {','.join(self.locales)}"] if self.locales else []
        return "".join(f" {item}" for item in [*found, *self.arguments])


DEFAULT_INSTALL_OPTIONS = InstallOptions()


@dataclass(frozen=True)
class Job:
    """What a generator works on. root: the image's file system. runner: how its programs are run."""

    image: OsImage
    root: Path
    runner: Runner
    warn: Callable[[str], None]

    @property
    def log(self) -> Path:
        """What the programs have said so far; an empty file if they have no log."""
        return self.runner.log or Path(os.devnull)

    @property
    def work(self) -> Path:
        """A directory for what must not be in the image: root/../../work."""
        return self.root.resolve().parent.parent / "work"


class Generator(Protocol):
    """Builds, and changes, a root from packages. All raise AvsError with the log's last lines."""

    @property
    def name(self) -> str:
        """What it is called in avs.conf and in reports."""

    def generate(self, job: Job) -> None:
        """Install what the definition lists into the empty root."""

    def install(self, job: Job, names: Sequence[str]) -> None:
        """Add packages to a root that was generated."""

    def remove(self, job: Job, names: Sequence[str]) -> None:
        """Remove packages from a root that was generated."""

    def upgrade(self, job: Job) -> None:
        """Bring all packages of a root to the newest version that its repositories have."""

    def programs(self) -> tuple[str, ...]:
        """The host's programs that are needed."""

    def identity(self) -> str:
        """What a build depends on besides the definition."""


def choose(image: OsImage, setting: str, install_options: InstallOptions = DEFAULT_INSTALL_OPTIONS) -> Generator:
    """The generator that a setting names, or that fits the osvers of the image."""
    from xcat_avs.generate.dnf import Dnf
    from xcat_avs.generate.mmdebstrap import Mmdebstrap
    from xcat_avs.generate.rinse import Rinse

    version = image.version
    if setting == "auto":
        if version.packages == "deb":
            setting = "mmdebstrap"
        elif version.family == "fedora" or (version.family == "el" and int(version.major) >= 8):
            setting = "dnf"
        elif version.family == "el" and int(version.major) >= 5:
            setting = "rinse"
        else:
            raise AvsError(
                f"{image.name}: there is no generator for osvers {image.osvers}; bring a tree with --from DIR, or set [image] generator"
            )
    kinds: dict[str, Callable[[InstallOptions], Generator]] = {"mmdebstrap": Mmdebstrap, "dnf": Dnf, "rinse": Rinse}
    if version.packages != ("deb" if setting == "mmdebstrap" else "rpm") or (
        setting == "rinse" and version.family != "el"
    ):
        raise AvsError(
            f"{image.name}: generator {setting} cannot build osvers {image.osvers}; set [image] generator = auto"
        )
    return kinds[setting](install_options)


@dataclass(frozen=True)
class PackageSet:
    """The packages of an image: pkglist and otherpkglist as one installation."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    environment: dict[str, str]


def package_set(image: OsImage) -> PackageSet:
    """Read the lists that a definition names. Raises AvsError if it names none."""
    paths = image.paths("pkglist")
    if not paths:
        raise AvsError(f"{image.name} names no pkglist; set pkglist in {image.origin}")
    try:
        base = pkglist.read(paths, variables(image))
        other = pkglist.read(image.paths("otherpkglist"), variables(image), strip_directory=True)
    except AvsError as err:
        raise err.prefixed(f"{image.name}: ") from None
    exclude = tuple(dict.fromkeys(base.exclude + other.exclude))
    include = tuple(name for name in dict.fromkeys(base.include + other.include) if name not in exclude)
    return PackageSet(include, exclude, {**dict(base.environment), **dict(other.environment)})


def lists(image: OsImage, attributes: Sequence[str] = LISTS) -> tuple[list[Path], list[str]]:
    """Every list that attributes name, with those they include, and what is wrong with those that cannot be read."""
    found: list[Path] = []
    problems: list[str] = []
    for attribute in attributes:
        kind = exlist.KIND if attribute == exlist.KIND else pkglist.KIND
        sources = [includes.source(path, kind, variables(image)) for path in image.paths(attribute)]
        files, wrong = includes.files(sources, comments=kind == exlist.KIND)
        found += files
        problems += wrong
    return found, problems


def list_files(image: OsImage) -> list[Path]:
    """Every package list of a definition, with those they include; those that cannot be read are left out."""
    return lists(image, LISTS[:2])[0]


def directories(image: OsImage, attribute: str) -> list[str]:
    """The items of a comma list of directories and URLs (pkgdir, otherpkgdir)."""
    return [item.strip() for item in image.attributes.get(attribute, "").split(",") if item.strip()]


def unknown_packages(log: Path, pattern: re.Pattern[str]) -> list[str]:
    """The packages that a package manager's log says it does not know."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return list(dict.fromkeys(name for match in pattern.finditer(text) for name in match.group(1).split()))


def explain_unknown(job: Job, log: Path, pattern: re.Pattern[str], err: AvsError) -> AvsError:
    """A clearer error where the reason was a package that no repository has."""
    names = unknown_packages(log, pattern)
    if not names:
        return err
    lists = ", ".join(map(str, list_files(job.image))) or "the package list"
    return AvsError(f"no repository has the package {' or '.join(names)}; fix {lists} or pkgdir", err.tail, err.log)


@contextmanager
def reproducible_initrds(root: Path) -> Iterator[None]:
    """Have the image's dracut make the same initrd of the same files during the block."""
    path = root / DRACUT_SETTING
    missing = [parent for parent in (path.parent.parent, path.parent) if not os.path.lexists(parent)]
    if not missing and os.path.realpath(path.parent) != os.path.join(
        os.path.realpath(root), os.path.dirname(DRACUT_SETTING)
    ):
        yield  # the directory is a link of the image, which may lead anywhere
        return
    for directory in missing:
        directory.mkdir(mode=0o755)
    path.write_text('reproducible="yes"\n', encoding="ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if not any((root / place / "dracut").is_dir() for place in ("usr/lib", "usr/share")):
            for directory in reversed(missing):  # where dracut is installed its package owns the directory
                if directory.is_dir() and not os.listdir(directory):
                    directory.rmdir()
