"""Osimages and tags, and finding the osimage that the command line means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from xcat_avs.definitions.osvers import PLAIN, OsNames, OsVersion
from xcat_avs.errors import AvsError, NotFoundError, SetupError, counted, nearest

ARCHES = "x86_64|aarch64|ppc64le|ppc64el|ppc64|s390x|i[3-6]86|x86|amd64|arm64|riscv64"
# The form xCAT itself gives names: OSVERS-ARCH-PROVMETHOD-PROFILE. OSVERS and PROFILE may hold
# a dash (centos-stream9), so the name is split at the architecture.
NAME_FORM = re.compile(
    rf"(?P<osvers>.+?)-(?P<osarch>{ARCHES})-(?P<provmethod>netboot|statelite|install)-(?P<profile>.+)"
)
# Attributes that name directories; every other absolute path in a definition names a file.
DIRECTORY_ATTRIBUTES = frozenset({"rootimgdir", "pkgdir", "otherpkgdir", "kerneldir", "driverupdatesrc"})


@dataclass(frozen=True)
class OsImage:
    """An osimage definition: every attribute as it was read, and where it was read."""

    name: str
    attributes: Mapping[str, str] = field(hash=False)
    origin: str = ""
    damaged: str = ""  # why this definition cannot be used
    os_names: OsNames = field(default=(), compare=False)  # the site's own names of distributions

    def _attribute(self, key: str) -> str:
        value = self.attributes.get(key, "")
        if not value:
            match = NAME_FORM.fullmatch(self.name)
            value = match.group(key) if match else ""
        return value

    @property
    def osvers(self) -> str:
        return self._attribute("osvers")

    @property
    def osarch(self) -> str:
        return self._attribute("osarch")

    @property
    def profile(self) -> str:
        return self._attribute("profile")

    @property
    def provmethod(self) -> str:
        return self._attribute("provmethod")

    @property
    def version(self) -> OsVersion:
        """Raises AvsError for an osvers of no known distribution."""
        try:
            return OsVersion.parse(self.osvers, self.os_names)
        except AvsError as err:
            raise err.prefixed(f"{self.name}: ") from None

    @property
    def store_path(self) -> str:
        """The path of this image in the store: `netboot/OSVERS/ARCH/PROFILE`."""
        return f"netboot/{self.osvers}/{self.osarch}/{self.profile}"

    def rootimgdir(self, installdir: Path) -> Path:
        """Where xCAT serves this image; unset means INSTALLDIR/netboot/OSVERS/ARCH/PROFILE."""
        value = self.attributes.get("rootimgdir", "")
        # Path drops superfluous slashes, except a second one at the beginning.
        return Path("/" + value.lstrip("/")) if value.startswith("/") else installdir / self.store_path

    def paths(self, attribute: str) -> tuple[Path, ...]:
        """The files a comma list attribute (pkglist, exlist, ...) names."""
        return tuple(Path(item.strip()) for item in self.attributes.get(attribute, "").split(",") if item.strip())

    def named_files(self) -> dict[Path, str]:
        """Every existing file that an attribute names, with that attribute.

        A value may be a comma list, and its items may carry arguments (postinstall).
        """
        found: dict[Path, str] = {}
        for attribute, value in sorted(self.attributes.items()):
            if attribute in DIRECTORY_ATTRIBUTES:
                continue
            for item in value.split(","):
                words = item.split()
                if words and words[0].startswith("/") and Path(words[0]).is_file():
                    found.setdefault(Path(words[0]), attribute)
        return found

    def stanza(self) -> str:
        """The definition as `lsdef -z` prints it."""
        first = ["objtype=osimage"]
        lines = first + [f"{key}={value}" for key, value in sorted(self.attributes.items()) if key != "objtype"]
        return "\n".join([f"{self.name}:", *("    " + line for line in lines)]) + "\n"

    def check(self) -> OsImage:
        """Refuse what cannot be built, stored or served; returns self."""
        if self.damaged:
            raise AvsError(f"{self.name}: the definition in {self.origin} cannot be trusted: {self.damaged}")
        for key in ("osvers", "osarch", "profile"):
            value = self._attribute(key)
            if not value:
                raise AvsError(
                    f"{self.name} has no {key}, and its name is not of the form OSVERS-ARCH-netboot-PROFILE; set {key} in {self.origin}"
                )
            if not PLAIN.fullmatch(value):
                raise AvsError(
                    f"{self.name}: {key} {value!r} may only hold letters, digits and . _ + ~ -; change it in {self.origin}"
                )
        if not PLAIN.fullmatch(self.name):
            raise AvsError(
                f"osimage name {self.name!r} may only hold letters, digits and . _ + ~ -; change it in {self.origin}"
            )
        rootimgdir = self.attributes.get("rootimgdir", "")
        plain = re.fullmatch(r"(/+[A-Za-z0-9_.+~-]+)+/*", rootimgdir) and not {".", ".."} & set(rootimgdir.split("/"))
        if rootimgdir and not plain:
            raise AvsError(
                f"{self.name}: rootimgdir {rootimgdir!r} must be an absolute path of letters, digits and . _ + ~ -; change it in {self.origin}"
            )
        if self.provmethod not in ("netboot", "statelite", ""):
            raise AvsError(
                f"{self.name} has provmethod {self.provmethod}; only netboot images are built and packed here"
            )
        return self


def same_trunk(images: Mapping[str, OsImage], image: OsImage) -> list[OsImage]:
    """The other osimages that would be stored in the trunk of this one: they have its osvers, architecture and profile.

    The install and statelite osimages that copycds makes beside a netboot one are never stored; a statelite one is, where it is named.
    """
    kinds = {"netboot", "", image.provmethod}
    return [
        other for name, other in sorted(images.items())
        if name != image.name and other.store_path == image.store_path and other.provmethod in kinds
    ]  # fmt: skip


def stored_images(images: Iterable[OsImage]) -> list[OsImage]:
    """Those that can be built and stored; a statelite one only where no netboot one has its trunk."""
    found: dict[str, OsImage] = {}
    for image in sorted(images, key=lambda image: image.provmethod == "statelite"):
        with suppress(AvsError):
            found.setdefault(image.check().store_path, image)
    return list(found.values())


@dataclass(frozen=True)
class Tag:
    """An immutable version in the store."""

    name: str
    revision: int  # the revision that made the tag
    source: int  # the revision of trunk it holds
    date: str  # UTC, ISO 8601
    author: str
    message: str
    real: str = ""  # the user, uid and host that the system knows
    # What is signed, with the signature; "" for none. Not in repr(), by which tags without a manifest are known.
    signature: str = field(default="", repr=False)
    # Of a copy from another store: the number that its revision was made with, where that is another; else 0.
    original: int = field(default=0, repr=False)

    @property
    def first(self) -> int:
        """The number that its revision was made with, in whichever store."""
        return self.original or self.source


def check_tag_name(name: str) -> str:
    """A tag name that is safe as a directory, a Subversion path and a shell word, or AvsError."""
    problem = ""
    if not name:
        problem = "is empty"
    elif name[0] in "-.=":
        problem = f"begins with {name[0]!r}"
    elif len(name.encode("utf-8", "surrogateescape")) > 200:
        problem = "is longer than 200 bytes"
    else:
        # "/", "@" and ":" mean something to Subversion and to -t OLD:NEW; the rest to a shell.
        special = set("/@:\\%#?*[]{}()<>|&;$!~^`'\"")
        bad = sorted({char for char in name if char in special or char.isspace() or not char.isprintable()})
        if bad:
            problem = "holds " + ", ".join(repr(char) for char in bad)
    if problem:
        raise AvsError(f"tag name {name!r} {problem}; take letters, digits and . _ + - (at most 200 bytes)")
    return name


def resolve(images: Mapping[str, OsImage], wanted: str, osvers: str = "", osarch: str = "") -> OsImage:
    """The one netboot osimage that a profile or a full name means. Never a guess.

    Raises NotFoundError with the nearest names, or AvsError with all that match.
    """
    if wanted in images:
        found = [images[wanted]]
    else:
        found = [image for image in images.values() if image.profile == wanted and image.provmethod in ("netboot", "")]
    matching = [image for image in found if osvers in ("", image.osvers) and osarch in ("", image.osarch)]
    if len(matching) == 1:
        return matching[0].check()
    if not matching:
        narrowed = "".join(f" with {key} {value}" for key, value in (("osvers", osvers), ("osarch", osarch)) if value)
        names = {image.profile for image in images.values()} | set(images)
        hint = nearest(wanted, names) if not found else f"; there is {', '.join(sorted(image.name for image in found))}"
        text = f"no osimage {wanted!r}{narrowed} among {counted(len(images), 'definition')}{hint}"
        raise NotFoundError(text) if images else SetupError(text)
    lines = [
        f"-o {image.osvers} -a {image.osarch}   {image.name}"
        for image in sorted(matching, key=lambda image: image.name)
    ]
    raise AvsError(
        f"{wanted!r} means {len(matching)} osimages; say which by the full name, or by -o OSVERS and -a ARCH:", lines
    )
