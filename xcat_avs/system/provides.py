"""Which package of this machine's distribution has a program, for the error when it is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
# What ID or ID_LIKE of os-release(5) says -> family.
FAMILIES = {
    "debian": "debian", "ubuntu": "debian", "rhel": "el", "fedora": "el", "centos": "el",
    "sles": "sles", "sled": "sles", "suse": "sles", "opensuse": "sles",
}  # fmt: skip
# Program -> its package, where all call it the same.
PACKAGES = {
    "fsvs": "fsvs", "xargs": "findutils", "svn": "subversion", "svnadmin": "subversion", "svnmucc": "subversion",
    "ostree": "ostree",
    "mmdebstrap": "mmdebstrap", "dnf": "dnf", "rpm": "rpm", "wget": "wget", "cpio": "cpio", "tar": "tar",
    "mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "gzip": "gzip", "zstd": "zstd",
    "cp": "coreutils", "chroot": "coreutils", "systemctl": "systemd",
}  # fmt: skip
# Family -> those that it calls otherwise, or that others do not have.
OWN = {
    "debian": {
        "apt-get": "apt", "apt-config": "apt", "rinse": "rinse", "rpm2cpio": "rpm2cpio", "xz": "xz-utils", "mount": "mount",
        "gpg": "gnupg", "ssh-keygen": "openssh-client", "systemd-nspawn": "systemd-container",
        "qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm", "qemu-system-ppc64": "qemu-system-ppc",
    },
    "el": {
        "apt-get": "apt", "apt-config": "apt", "rpm2cpio": "rpm", "xz": "xz", "mount": "util-linux",
        "gpg": "gnupg2", "ssh-keygen": "openssh", "systemd-nspawn": "systemd-container",
        "qemu-system-x86_64": "qemu-kvm", "qemu-system-aarch64": "qemu-kvm", "qemu-system-ppc64": "qemu-kvm",
    },
    "sles": {
        "rpm2cpio": "rpm", "xz": "xz", "mount": "util-linux", "mksquashfs": "squashfs", "unsquashfs": "squashfs",
        "gpg": "gpg2", "ssh-keygen": "openssh-common", "systemd-nspawn": "systemd-container",
        "qemu-system-x86_64": "qemu-x86", "qemu-system-aarch64": "qemu-arm", "qemu-system-ppc64": "qemu-ppc",
        "ostree": "libostree",
    },
}  # fmt: skip
# Family -> what installs packages.
INSTALL = {"debian": "apt-get install", "el": "dnf install", "sles": "zypper install"}


def family() -> str:
    """The family of this machine's distribution: debian, el or sles; "" for another one, or where nothing says it."""
    for path in OS_RELEASE:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        fields = dict(re.findall(r"^(ID|ID_LIKE)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
        words = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
        known = [FAMILIES[name] for name in (word.split("-")[0] for word in words) if name in FAMILIES]
        return known[0] if known else ""
    return ""


def package(program: str) -> str:
    """The package of a program, "" where it is not known."""
    own = OWN.get(family())
    return "" if own is None else own.get(program, PACKAGES.get(program, ""))


def known(program: str) -> bool:
    """Whether it is a program of some distribution, and not one of xCAT or a site."""
    return program in PACKAGES or any(program in own for own in OWN.values())


def packages(programs: Sequence[str]) -> list[str]:
    """The packages of programs, each once; those that are not known are left out."""
    found = [package(os.path.basename(program)) for program in programs]
    return [name for name in dict.fromkeys(found) if name]


def install(programs: Sequence[str]) -> str:
    """The command that installs programs, "" where no package of them is known."""
    names = packages(programs)
    return " ".join([INSTALL[family()], *names]) if names else ""


def missing(programs: Sequence[str]) -> str:
    """That programs are not installed, in words, and what they are in."""
    names = packages(programs)
    several = len(programs) > 1
    what = f"the programs {', '.join(programs)} are" if several else f"the program {programs[0]} is"
    where = f"{'they are' if several else 'it is'} in the package{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return f"{what} not installed" + (f"; {where}" if names else "")
