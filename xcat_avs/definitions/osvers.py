"""An osvers: its distribution, its numbers, the family chain of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from xcat_avs.errors import AvsError

# A distribution, its release, and what a site or copycds appends: rhels7.5-alternate, sles12sp5.
OSVERS_FORM = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z_-]*?)-?(?P<major>[0-9]+)(?:(?P<minor>(?:\.[0-9]+)+)|-?[sS][pP](?P<pack>[0-9]+))?"
    r"(?P<more>(?:[._+~-]?[A-Za-z]|[_+~-][0-9])[A-Za-z0-9_.+~-]*)?"
)
LAST_NUMBER = re.compile(r"(?P<major>[0-9]+)(?P<minor>(?:\.[0-9]+)*)$")
# An osvers becomes a directory, a Subversion path and a word in shell lines of xCAT, so it must be plain.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*")

# distribution (as xCAT spells it in osvers, lower case) -> family
DISTRIBUTIONS = {
    "rhels": "el", "rhel": "el", "rhelc": "el", "rhelhpc": "el", "centos": "el", "centos-stream": "el", "rocky": "el",
    "alma": "el", "almalinux": "el", "ol": "el", "oraclelinux": "el", "sl": "el", "el": "el", "fedora": "fedora",
    "rhas": "el", "rhes": "el", "rhws": "el", "rhelserver": "el",
    "sles": "sles", "sled": "sles", "sle": "sles", "suse": "sles", "opensuse": "sles", "opensuse-leap": "sles", "leap": "sles",
    "debian": "debian", "ubuntu": "ubuntu",
}  # fmt: skip
# family -> digits of a first number, and from which number on a release without dots is one: centos74, ubuntu2204
WITHOUT_DOTS = {"el": (1, 30), "sles": (2, 100), "ubuntu": (2, 1000)}
FAMILIES = tuple(dict.fromkeys(DISTRIBUTIONS.values()))
# A site's name for a distribution (an osvers, or the beginning of one with "*") and the known one it is like.
OsNames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class OsVersion:
    """An osvers such as `rocky9.4`: distribution, numbers, and the family chain of layers.

    like: the osvers known here that a site says this one is like.
    """

    name: str
    distribution: str
    family: str
    major: str
    minor: str
    like: str = ""

    @classmethod
    def parse(cls, osvers: str, names: OsNames = ()) -> OsVersion:
        """Raises AvsError for one of no distribution that is known here or in names."""
        like = _like(osvers, names)
        if like and like not in FAMILIES:
            return replace(cls.parse(like), name=osvers, like=like)
        if not PLAIN.fullmatch(osvers):
            raise AvsError(f"osvers {osvers!r} may only hold letters, digits and . _ + ~ -; rocky9.4 is one")
        match = OSVERS_FORM.fullmatch(osvers)
        if like and (match is None or (match["more"] or "")[:1].isalpha()):
            match = LAST_NUMBER.search(osvers)
            if match is None:
                raise AvsError(
                    f"osvers {osvers!r} does not end with a release number; [osvers] of avs.conf only gives its family {like}, "
                    "and may name an osvers instead, such as rocky9.4"
                )
        distribution = like or (match["name"].lower().replace("_", "-") if match else "")
        if match is None or distribution not in DISTRIBUTIONS:
            known = ", ".join(sorted(DISTRIBUTIONS))
            raise AvsError(
                f"osvers {osvers!r} is of no distribution known here; known are {known}, each with its release number. "
                f"If it is like one of them, say so in [osvers] of avs.conf: `{osvers} = rocky9.4`{_for_all(osvers)}"
            )
        family = DISTRIBUTIONS[distribution]
        return cls(osvers, distribution, family, *_release(family, match.groupdict("")))

    @property
    def packages(self) -> str:
        """The package format: `deb` or `rpm`."""
        return "deb" if self.family in ("debian", "ubuntu") else "rpm"

    @property
    def release(self) -> str:
        """What the distribution calls a release: `9`, `15`, `12`, but `24.04` of ubuntu."""
        minor = self.minor.split(".")[0]
        return f"{self.major}.{minor}" if self.family == "ubuntu" and minor else self.major

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the layers for this version, the most general first."""
        base = ("debian",) if self.family == "ubuntu" else ()
        names = (
            *base,
            self.family,
            self.family + self.major,
            self.family + self.release,
            self.like or self.name,
            self.name,
        )
        return tuple(dict.fromkeys(names))


def _like(osvers: str, names: OsNames) -> str:
    """The known osvers that a site says this one is like: by its whole name, else by the longest matching beginning."""
    exact = dict(names).get(osvers)
    beginnings = [(name, like) for name, like in names if name.endswith("*") and osvers.startswith(name[:-1])]
    return exact or max(beginnings, key=lambda item: len(item[0]), default=("", ""))[1]


def _release(family: str, found: Mapping[str, str]) -> tuple[str, str]:
    """The first number of a release and the others."""
    major, minor = found["major"], found["minor"].lstrip(".") or found.get("pack", "")
    digits, least = WITHOUT_DOTS.get(family, (0, 0))
    if digits and not minor and int(major) >= least:
        return major[:digits], major[digits:]
    return major, minor


def _for_all(osvers: str) -> str:
    """Advice that covers all releases of a distribution, where naming a family is enough."""
    stem = LAST_NUMBER.sub("", osvers)
    return f", or for all its releases `{stem}* = el`" if stem not in ("", osvers) else ""


def check_os_name(name: str, like: str) -> None:
    """Refuse a line of [osvers] that has not the form `mylinux9 = rocky9.4` or `mylinux* = el`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*\*?", name):
        raise AvsError(f"{name!r} is no osvers, nor the beginning of one with * after it")
    if like not in FAMILIES:
        try:
            OsVersion.parse(like)
        except AvsError:
            raise AvsError(
                f"{name} is said to be like {like!r}; it takes a family ({', '.join(FAMILIES)}) or an osvers such as rocky9.4"
            ) from None
