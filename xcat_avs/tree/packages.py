"""The packages of an image: read from its own database, written, compared.

The text of a list is one line a package, after a first line that names their kind (`#packages deb`):
name, epoch (0 where there is none), version, release (may be empty with deb), architecture, parted by tabs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from xcat_avs.errors import AvsError, CommandError
from xcat_avs.system.descent import read_file
from xcat_avs.system.runner import capture
from xcat_avs.tree.inside import inside

RPM_DATABASES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
RPM_FILES = ("rpmdb.sqlite", "Packages", "Packages.db")
DPKG_STATUS = "var/lib/dpkg/status"
STORED = "build_info/packages"  # where a version keeps its list
QUERY = r"%{NAME}\t%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n"  # an old rpm knows no EPOCHNUM
SIZES = r"%{NAME}\t%{ARCH}\t%{SIZE}\n"
HEADER = "#packages "
KINDS = ("deb", "rpm", "none")  # none: an image without a database
# rpm prints this of a database that it cannot read, and exits with 0.
UNREADABLE = re.compile(r"^error:|using dummy database")
FIELD = re.compile(r"^(Package|Status|Version|Architecture|Installed-Size): *(.*?) *$", re.MULTILINE)
RPM_PART = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")
DPKG_PART = re.compile(r"([^0-9]*)([0-9]*)")


class Package(NamedTuple):
    """An installed package."""

    name: str
    epoch: int
    version: str
    release: str
    arch: str

    @property
    def full_version(self) -> str:
        """EPOCH:VERSION-RELEASE, without what is not there."""
        epoch = f"{self.epoch}:" if self.epoch else ""
        return epoch + self.version + (f"-{self.release}" if self.release else "")


class PackageList(list[Package]):
    """Packages, sorted, and their kind: `deb`, `rpm`, or `none` for an image without a database."""

    def __init__(self, kind: str, packages: Iterable[Package] = ()) -> None:
        super().__init__(sorted(packages))
        self.kind = kind


class PackageChanges(NamedTuple):
    """What differs between two lists. Where a package has several versions, each is added or removed on its own."""

    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    upgraded: tuple[tuple[Package, Package], ...]
    downgraded: tuple[tuple[Package, Package], ...]


def read(root: Path) -> PackageList:
    """The packages in an image by its own database; a root that holds only the database will do.

    Raises CommandError where rpm cannot read it.
    """
    status = _place(root, DPKG_STATUS)
    if status.is_file():
        return parse_status(status.read_text(encoding="utf-8", errors="replace"))
    directory = rpm_database(root)
    if directory is None:
        return PackageList("none")
    return PackageList("rpm", _rpms(_query(root, directory, QUERY)))


def _query(root: Path, directory: str, form: str) -> str:
    """What rpm says of all packages. Raises CommandError where it cannot read the database in directory."""
    query = ["-qa", "--qf", form]
    # The image's own rpm reads its database best; a small image may have no rpm.
    if (root / "usr/bin/rpm").exists() and capture(["chroot", str(root), "rpm", "--version"], check=False).code == 0:
        return capture(["chroot", str(root), "rpm", *query]).text
    # rpm reads Packages.db only with its backend named, and many versions do not know that backend.
    backend = ["--define=_db_backend ndb"] if (root / directory / "Packages.db").is_file() else []
    output = capture(["rpm", *backend, "--dbpath", str(root / directory), *query])
    errors = [line for line in output.stderr.splitlines() if UNREADABLE.search(line)]
    if errors:
        raise CommandError(f"rpm cannot read the database in {directory}", errors)
    return output.text


def rpm_sizes(root: Path) -> dict[tuple[str, str], int]:
    """Name and architecture of each package -> its bytes, all versions of it together. Raises CommandError as read does."""
    directory = rpm_database(root)
    found: Counter[tuple[str, str]] = Counter()
    for line in _query(root, directory, SIZES).splitlines() if directory else ():
        name, arch, size = line.split("\t")
        found[name, arch] += int(size) if size.isdigit() else 0
    return dict(found)


def status_sizes(text: str) -> dict[tuple[str, str], int]:
    """The same of a dpkg status file."""
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(FIELD.findall(paragraph))
        if fields.get("Status", "").endswith(" installed"):
            size = fields.get("Installed-Size", "")
            found[fields.get("Package", ""), fields.get("Architecture", "")] = int(size) << 10 if size.isdigit() else 0
    return found


def examine(root: Path) -> tuple[PackageList, str]:
    """The packages, and what is wrong with the database ("": nothing). One that cannot be read counts as none."""
    try:
        found = read(root)
    except CommandError as err:
        return PackageList("none"), f"{err.text} ({err.tail[-1].strip()})" if err.tail else err.text
    if found:
        return found, ""
    if (root / "root/.rpmdb").is_dir():
        return found, "its rpm database is in /root/.rpmdb, where an rpm of Debian has put it; move it to /var/lib/rpm"
    if found.kind == "none":
        return (
            found,
            f"it has no package database (/{DPKG_STATUS}, {', '.join(f'/{place}' for place in RPM_DATABASES)})",
        )
    return found, "its package database holds no package"


def rpm_database(root: Path) -> Optional[str]:
    """The directory of an image's rpm database, relative to its root."""
    for directory in RPM_DATABASES:
        found = _place(root, directory)
        if any((found / name).is_file() for name in RPM_FILES):
            return str(found.relative_to(root))
    return None


def _place(root: Path, path: str) -> Path:
    """A path of an image as the host sees it, through the image's links; its root where they go round in a circle."""
    try:
        return inside(root, path, follow=True)
    except AvsError:
        return root


def shipped(root: Path, path: str, data: bytes) -> bool:
    """Whether a file is, byte for byte, as a deb brought it, and so known to everyone. Of an rpm that is not found out."""
    line = f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {path}\n".encode("utf-8", "surrogateescape")
    sums = _place(root, "var/lib/dpkg/info").glob("*.md5sums")
    return any(line in (read_file(str(sum.parent), sum.name) or b"") for sum in sums)


def parse_status(text: str) -> PackageList:
    """The installed packages of a dpkg status file."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(FIELD.findall(paragraph))
        if fields.get("Status", "").endswith(" installed"):
            epoch, _, rest = fields.get("Version", "").rpartition(":")
            version, dash, release = rest.rpartition("-")
            if not dash:
                version, release = rest, ""
            number = _epoch(epoch)
            found.append(Package(fields.get("Package", ""), number, version, release, fields.get("Architecture", "")))
    return PackageList("deb", found)


def _rpms(text: str) -> Iterable[Package]:
    for line in text.splitlines():
        try:
            name, epoch, version, release, arch = line.split("\t")
        except ValueError:
            raise AvsError(f"rpm answers with a line that is no package: {line[:120]!r}") from None
        if name != "gpg-pubkey":  # a key is kept like a package
            yield Package(name, _epoch(epoch), version, release, arch)


def _epoch(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def dump(packages: PackageList) -> str:
    """The list as text."""
    lines = ["\t".join((item.name, str(item.epoch), *item[2:])) for item in packages]
    return "\n".join([HEADER + packages.kind, *lines]) + "\n"


def load(text: str, origin: str) -> PackageList:
    """A list from its text. Raises AvsError with origin and line for what is not one."""
    first, *lines = text.split("\n")
    kind = first[len(HEADER) :]
    if first != HEADER + kind or kind not in KINDS or not lines or lines.pop() != "" or (kind == "none" and lines):
        raise AvsError(f"{origin} is no whole list of packages")
    found: list[Package] = []
    for number, line in enumerate(lines, 2):
        try:
            name, epoch, version, release, arch = line.split("\t")
            package = Package(name, _epoch(epoch), version, release, arch)
            if not name or str(package.epoch) != epoch or (found and found[-1] > package):
                raise ValueError(line)
        except ValueError:
            raise AvsError(f"{origin}, line {number}: not a package, or not in order: {line[:120]!r}") from None
        found.append(package)
    return PackageList(kind, found)


def compare(old: Iterable[Package], new: Iterable[Package], kind: str) -> PackageChanges:
    """What differs between two lists of one kind (`deb` or `rpm`), sorted by name."""
    key = deb_key if kind == "deb" else rpm_key
    before, after = _by_name(old), _by_name(new)
    added: list[Package] = []
    removed: list[Package] = []
    upgraded: list[tuple[Package, Package]] = []
    downgraded: list[tuple[Package, Package]] = []
    for name in sorted(before.keys() | after.keys()):
        ours, theirs = before.get(name, set()), after.get(name, set())
        if ours == theirs:
            continue
        if len(ours) == len(theirs) == 1:
            pair = (next(iter(ours)), next(iter(theirs)))
            one, other = (_order(package, key) for package in pair)
            if one != other:
                (upgraded if one < other else downgraded).append(pair)
                continue
        removed += sorted(ours - theirs)
        added += sorted(theirs - ours)
    return PackageChanges(tuple(added), tuple(removed), tuple(upgraded), tuple(downgraded))


def _by_name(packages: Iterable[Package]) -> dict[tuple[str, str], set[Package]]:
    found: dict[tuple[str, str], set[Package]] = {}
    for package in packages:
        found.setdefault((package.name, package.arch), set()).add(package)
    return found


Key = list[tuple[object, ...]]


def _order(package: Package, key: Callable[[str], Key]) -> tuple[int, Key, Key]:
    return package.epoch, key(package.version), key(package.release)


def rpm_key(text: str) -> Key:
    """Sort key of a version or release in the order of rpmvercmp.

    Runs of digits and of letters are compared one by one, a number being newer than letters. What else
    stands between them only parts them, but for `~`, which is older than the end, and `^`, newer than the end.
    """
    key: Key = []
    for part in RPM_PART.findall(text):
        if part == "~":
            key.append((0,))
        elif part == "^":
            key.append((2,))
        elif part.isdigit():
            key.append((4, *_number(part)))
        else:
            key.append((3, part))
    return [*key, (1,)]  # the end


def _number(digits: str) -> tuple[int, str]:
    """Sort key of a number of any length."""
    digits = digits.lstrip("0")
    return len(digits), digits


def deb_key(text: str) -> Key:
    """Sort key of a version or revision in the order of dpkg.

    By turns what is no number, sign by sign (`~`, then the end, letters, all others), and a number.
    """
    key: Key = []
    for signs, number in DPKG_PART.findall(text):
        order = [-1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256 for sign in signs]
        key.append(([*order, 0], _number(number)))
    end = ([0], _number(""))
    while key and key[-1] == end:  # a trailing 0 compares as nothing
        key.pop()
    return [*key, end]


def count_packages(root: Path) -> int:
    """The number of packages in an image by its own database; 0 without one that can be read."""
    return len(examine(root)[0])


def package_names(root: Path) -> list[str]:
    """The packages in an image by its own database, one of several versions or architectures once each."""
    return [package.name for package in read(root)]
