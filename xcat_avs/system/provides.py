"""Which package of this machine's distribution has a program, for the error when it is missing."""

from __future__ import annotations

import re
from pathlib import Path

OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
# What ID or ID_LIKE of os-release(5) says -> family.
FAMILIES = {
    "debian": "debian", "ubuntu": "debian", "rhel": "el", "fedora": "el", "centos": "el",
    "sles": "sles", "sled": "sles", "suse": "sles", "opensuse": "sles",
}  # fmt: skip
# Program -> its package, where all call it the same.
PACKAGES = {
    "fsvs": "fsvs", "svn": "subversion", "svnadmin": "subversion", "svnmucc": "subversion",
    "ostree": "ostree",
    "mmdebstrap": "mmdebstrap", "dnf": "dnf", "rpm": "rpm", "wget": "wget", "cpio": "cpio", "tar": "tar",
    "mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "gzip": "gzip", "zstd": "zstd",
    "cp": "coreutils", "chroot": "coreutils", "systemctl": "systemd",
}  # fmt: skip
# Family -> those that it calls otherwise, or that others do not have.
OWN = {
    "debian": {
        "apt-get": "apt", "apt-config": "apt", "rinse": "rinse", "rpm2cpio": "rpm2cpio", "xz": "xz-utils", "mount": "mount",
    },
    "el": {"apt-get": "apt", "apt-config": "apt", "rpm2cpio": "rpm", "xz": "xz", "mount": "util-linux"},
    "sles": {
        "rpm2cpio": "rpm", "xz": "xz", "mount": "util-linux", "mksquashfs": "squashfs", "unsquashfs": "squashfs",
    },
}  # fmt: skip


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
