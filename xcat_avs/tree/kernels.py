"""Find the kernels of an image, the one that nodes boot, and its modules."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.tree import packages
from xcat_avs.tree.inside import inside

KERNEL, INITRD = "kernel", "initrd-stateless.gz"
NAMES = ("[Ii]mage-*", "vmlinux-*", "vmlinuz-*")  # in /boot; of several files of one release the last one is taken
NO_KERNEL = re.compile(r".+\.(?:bz2|gz|hmac|sig|xz|zst)")
MODULE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?")
ARCHITECTURE = (
    r"x86_64|amd64|(?:i[3-6]|[3-6])86|aarch64|arm64|armhf|armmp|armv\w+|ppc64(?:le|el)?|powerpc64(?:le)?"
    r"|s390x?|riscv64|loong(?:arch)?64|ia64|sparc64"
)
RPM_ARCHITECTURE = re.compile(rf"\.(?:{ARCHITECTURE})(?![A-Za-z0-9_])")
# Words after the version that are no flavour: names of the plain kernel in Debian, Ubuntu and SUSE, or of a build.
PLAIN = re.compile(rf"(?:{ARCHITECTURE}|generic|default|server|bpo|deb\d*|trunk|arch\d*|g[0-9a-f]{{7,}}|dirty|[\d.]+)?")
# Flavours that stand within the version of an rpm: .rt7., .debug, el5xen, el9uek64k.
INNER = re.compile(
    r"[._](rt|debug|64k|xen|pae|plus|kdump|smp|hugemem|lpae|zfcpdump)\d*(?![A-Za-z0-9])|\.el\d+(?:uek)?(64k|[a-z]{2,})"
)
CANDIDATE = re.compile(r"(?<=\d)[-._]?rc(?=\d)")
RESCUE = re.compile(r"(?:^0-|[-._+])rescue\b")
BACKUP = re.compile(r"(?:\.(?:old|bak|backup|orig|save|dpkg-\w+|rpm\w+)|~)$")
BANNER = re.compile(rb"Linux version (\S+) ")
LIMIT = 1 << 28  # bytes of a kernel file that are searched for its release


def flavour(release: str) -> str:
    """The flavour of a kernel, such as `debug` or `cloud`; "" for the plain one of its distribution.

    `old` is a backup of `make install`, `rescue` a rescue kernel.
    """
    if RESCUE.search(release):
        return "rescue"
    if BACKUP.search(release):
        return "old"
    # In 5.14.0-427.el9.x86_64+debug and 3.10.0-1160.el7.x86_64.debug the flavour follows the architecture.
    version, *words = re.split(r"[-+]", RPM_ARCHITECTURE.sub("", CANDIDATE.sub("~rc", release).lower(), count=1))
    if words and words[0][:1].isdigit():
        version += f"-{words.pop(0)}"
    found = [one or other for one, other in INNER.findall(version) if other != "uek"]  # Oracle's plain one
    return "-".join([*found, *(word for word in words if not PLAIN.fullmatch(word))])


def _order(root: Path, release: str) -> tuple[int, object]:
    """Sort key: backups and rescue kernels first, then flavours, then plain ones; each by the order of dpkg or rpm."""
    kind = flavour(release)
    rank = 2 if not kind else 0 if kind in ("old", "rescue") else 1
    text = CANDIDATE.sub("~rc", release)  # with ~ a release candidate sorts before its release
    if (root / packages.DPKG_STATUS).is_file():
        return rank, packages.deb_key(text)
    version, _, rest = text.partition("-")
    return rank, (packages.rpm_key(version), packages.rpm_key(rest))


def kernels(root: Path) -> dict[str, Path]:
    """The kernels of an image, release to file (which may be a link within the image).

    The oldest first, and those of a flavour before the plain ones: the last one is what nodes are to boot.
    """
    boot, modules = inside(root, "boot", follow=True), inside(root, "lib/modules", follow=True)
    files = [path for name in NAMES for path in boot.glob(name) if not NO_KERNEL.fullmatch(path.name)]
    found = {path.name.split("-", 1)[1]: path for path in files}
    if not found:
        found = {path.parent.name: path for path in modules.glob("*/vmlinuz")}
    return dict(sorted(found.items(), key=lambda item: _order(root, item[0])))


def module_releases(root: Path) -> list[str]:
    """The releases that an image has a directory of modules for, in the order of kernels."""
    directory = inside(root, "lib/modules", follow=True)
    return sorted(
        (path.name for path in directory.glob("*") if path.is_dir()), key=lambda release: _order(root, release)
    )


def newest_kernel(root: Path, suffix: str = "") -> str:
    """The release of the newest kernel of an image, the plain one before flavours; "" without one.

    suffix: only of those that end so. One without its modules is taken only where no kernel has any.
    """
    found = [release for release in kernels(root) if release.endswith(suffix)]
    present = module_releases(root)
    return next(reversed([release for release in found if release in present] or found), "")


def kernel_file(root: Path, release: str) -> Path:
    """That kernel of an image. Raises AvsError, with those that are there, where it has none or not its modules."""
    found = kernels(root)
    if release not in found:
        there = ", ".join(found) or "none"
        raise AvsError(f"the image has no kernel {release or 'at all'} in boot or lib/modules; there is {there}")
    present = module_releases(root)
    if present and release not in present:  # an image without any modules may have a kernel with all drivers built in
        raise AvsError(
            f"the image has no modules of kernel {release} in lib/modules; there are those of {', '.join(present)}"
        )
    return inside(root, str(found[release].relative_to(root)), follow=True)


def take_kernel(root: Path, target: Path, release: str = "") -> str:
    """Copy a kernel of an image (the newest), and its initrd, to target/kernel and target/initrd-stateless.gz.

    Returns its release, "" for an image without a kernel. Raises AvsError for a release that is not whole in the image.
    """
    found = kernels(root)
    if not release and not found:
        return ""
    release = release or newest_kernel(root)
    kernel_file(root, release)
    boot = inside(root, "boot", follow=True)
    names = [f"initrd.img-{release}", f"initramfs-{release}.img", f"initrd-{release}.img", f"initrd-{release}"]
    initrds = [boot / name for name in names if (boot / name).is_symlink() or (boot / name).is_file()]
    if not initrds and (target / INITRD).exists():  # the initrd that is there has modules of another kernel
        raise AvsError(
            f"the image has no initrd of kernel {release} in boot; install what makes one, or another kernel"
        )
    _copy_out(root, found[release], target / KERNEL)
    for initrd in initrds[:1]:
        _copy_out(root, initrd, target / INITRD)
    return release


def _copy_out(root: Path, path: Path, target: Path) -> None:
    """Copy a file out of the image, through links within it. The copy replaces target; a link there is not followed."""
    source = inside(root, str(path.relative_to(root)), follow=True)
    if source.is_file():
        new = target.with_name(f".{target.name}.new")
        new.unlink(missing_ok=True)
        shutil.copy2(source, new)
        os.replace(new, target)


def check_modules(tree: Path) -> None:
    """Raise AvsError where the file `kernel` of a tree is of another release than all the modules in its rootimg.

    A kernel whose release cannot be read is taken as it is, and so is one where the image has no modules at all.
    """
    path, root = tree / KERNEL, tree / "rootimg"
    if not path.is_file() or path.is_symlink() or not root.is_dir():
        return
    release, present = read_release(path), module_releases(root)
    if release and present and release not in present:
        raise AvsError(
            f"the file kernel is {release}, and rootimg has modules of {', '.join(present)} only: nodes would come up "
            f"without drivers. Build anew with one kernel, put the kernel and initrd of {present[-1]} beside rootimg, "
            f"or install the modules of {release}; for a kernel that needs none make rootimg/lib/modules/{release}"
        )


def read_release(path: Path) -> str:
    """The release that is written in a kernel file; "" for a format that is not known here."""
    with open(path, "rb") as stream:
        data = stream.read(LIMIT)
    if data[0x202:0x206] == b"HdrS":  # Documentation/arch/x86/boot.rst: kernel_version
        start = int.from_bytes(data[0x20E:0x210], "little") + 0x200
        words = data[start : start + 256].split(b"\0")[0].split()
        return os.fsdecode(words[0]) if words else ""
    if data[4:8] == b"zimg":  # an EFI program that unpacks the kernel: its header has offset and size
        start, size = (int.from_bytes(data[at : at + 4], "little") for at in (8, 12))
        data = data[start : start + size]
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, LIMIT)
        except zlib.error:
            return ""
    match = BANNER.search(data)
    return os.fsdecode(match.group(1)) if match else ""


def with_modules(root: Path, wanted: str = "") -> str:
    """The release that nodes boot: the wanted one, else the newest that has modules. Never that of this machine.

    Raises AvsError where the image has no modules of it.
    """
    found = module_releases(root)
    # A directory without a kernel is left of a removed one, or was made by the modules that are to be checked.
    whole = [name for name in kernels(root) if name in found]
    names = [name for name in found if name == wanted] if wanted else whole or found
    if not names:
        there = ", ".join(found) or "none"
        raise AvsError(f"the image has no modules of kernel {wanted or 'at all'} in lib/modules; there is {there}")
    return names[-1]


def missing_modules(root: Path, release: str, names: Sequence[str]) -> list[str]:
    """Which of the modules are not there for a kernel, by their files; `-` and `_` are the same in a name."""
    present = set()
    for _, _, files in os.walk(inside(root, f"lib/modules/{release}", follow=True)):
        matches = (MODULE.fullmatch(file) for file in files)
        present |= {match.group(1).replace("-", "_") for match in matches if match}
    return [name for name in names if name.replace("-", "_") not in present]
