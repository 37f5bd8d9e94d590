"""The add-ons of a tag as archives that avsaddons puts onto a node."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.pack import archive, proof
from xcat_avs.pack.archive import Form
from xcat_avs.system.descent import Descent, read_file
from xcat_avs.system.runner import Runner
from xcat_avs.tree import delta, rights, scan
from xcat_avs.tree.manifest import CAPABILITY, SELINUX

DIRECTORY = "addons"  # of a version, and of a published set
SUFFIX = ".cpio.gz"
FORM = Form("cpio", "gzip")
SUMS = "SHA256SUMS"  # as sha256sum -c reads it
# In the archive, what the node has to be told; gone from it when the add-on is there.
LISTS = ".avs-addon"
# Files that a node may have changed, and of which an add-on only adds its own lines.
ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid")
MODULE = re.compile(r"(?:usr/)?lib/modules/([^/]+)/.*\.ko(?:\.(?:xz|zst|gz))?")
UNIT = re.compile(r"(?:etc|(?:usr/)?lib)/systemd/system/.*")
STARTED = re.compile(
    r"etc/systemd/system/(?:multi-user|basic|sysinit|sockets|timers|network-online|remote-fs)\.target\.wants/([^/]+)"
)
LIBRARY = re.compile(r"etc/ld\.so\.(?:cache|conf\.d/.*)|.*\.so(?:\.[0-9.]+)?")


def write(tree: Path, base: Path, new: Path, facts: Mapping[str, str], runner: Runner) -> list[str]:
    """Archive every add-on of a disposable checkout into new/addons, proven, with their checksums; returns their names.

    base: the root of the image as the tag has it. facts: what the image says of itself; an add-on is only for that.
    The same tag gives the same bytes.
    """
    names = [path.name for path in sorted((tree / DIRECTORY).glob("*")) if (path / "rootimg").is_dir()]
    if not names:
        return []
    (new / DIRECTORY).mkdir()
    sums = []
    for name in names:
        source, target = tree / DIRECTORY / name, new / DIRECTORY / f"{name}{SUFFIX}"
        root = source / "rootimg"
        status = root.lstat()
        if os.path.lexists(root / LISTS):
            raise AvsError(f"add-on {name} has a /{LISTS} of its own, which is a name that packing needs")
        (root / LISTS).mkdir(mode=0o700)
        for item, text in _lists(source, base, facts).items():
            (root / LISTS / item).write_text(text, encoding="ascii")
            os.chmod(root / LISTS / item, 0o600)
            os.utime(root / LISTS / item, (0, 0))
        os.utime(root / LISTS, (0, 0))
        os.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))
        wanted = scan.scan_with_top(str(root))
        archive.refuse_large(FORM, wanted.values())
        archive.write(root, target, FORM, runner, onto=True)
        proof.prove(target, FORM, wanted, runner)
        sums.append(f"{scan.digest(str(target))}  {target.name}\n")
    (new / DIRECTORY / SUMS).write_text("".join(sums), encoding="ascii")
    return names


def foreign(tree: Path) -> list[str]:
    """The add-ons of a checkout that are not in our form, as avs_image_mgr stored them."""
    return [path.name for path in sorted((tree / DIRECTORY).glob("*")) if not (path / "rootimg").is_dir()]


def _lists(source: Path, base: Path, facts: Mapping[str, str]) -> dict[str, str]:
    """What the node has to be told, by the name of the file."""
    removed = read_file(str(source), "removed") or b""
    if not removed.isascii():
        raise AvsError(f"add-on {source.name}: its list of removed paths is damaged: it is no ASCII text")
    root = source / "rootimg"
    return {
        "release": "".join(f"{name}='{facts[name]}'\n" for name in ("AVS_SOURCE", "AVS_TAG")),
        "removed": removed.decode("ascii"),
        "xattrs": "".join(_xattrs(root)),
        "accounts": "".join(_accounts(root, base)),
        "needs": "".join(f"{line}\n" for line in _needs(root)),
    }


def _xattrs(root: Path) -> Iterator[str]:
    """What cpio loses: `PATH NAME HEX TEXT`, the text being that of setcap for capabilities."""
    with Descent(str(root)) as tree:
        for path, _ in [("", None), *scan.walk(str(root))]:
            for name, value in scan.read_xattrs(tree.name(path)):
                if name != SELINUX and path.split("/")[0] != LISTS:
                    yield xattr_line(path or ".", name, value)


def xattr_line(path: str, name: str, value: bytes) -> str:
    """An extended attribute as a line that a shell can read: `PATH NAME HEX [TEXT]`."""
    words = [delta.escape(path), delta.escape(name), f"0x{value.hex()}" if value else "-"]
    return " ".join([*words, capabilities(value)] if name == CAPABILITY else words) + "\n"


def capabilities(value: bytes) -> str:
    """An attribute security.capability as setcap takes it, by numbers: `13=ep 21=ep`."""
    return " ".join(f"{number}={letters}" for number, letters in rights.flags(value).items())


def _accounts(root: Path, base: Path) -> Iterator[str]:
    """The files of accounts that an add-on changes, and what they are in the base: `SHA256  PATH`."""
    for path in ACCOUNTS:
        data = read_file(str(base), path)
        if data is not None and read_file(str(root), path) is not None:
            yield f"{hashlib.sha256(data).hexdigest()}  {path}\n"


def _needs(root: Path) -> list[str]:
    """What there is to do on the node: `modules RELEASE`, `units`, `start UNIT`, `libraries`."""
    needs = set()
    for path, status in scan.walk(str(root)):
        module, started = MODULE.fullmatch(path), STARTED.fullmatch(path)
        if module:
            needs.add(f"modules {delta.escape(module.group(1))}")
        if UNIT.fullmatch(path) and not stat.S_ISDIR(status.st_mode):
            needs.add("units")
        if started:
            needs.add(f"start {delta.escape(started.group(1))}")
        if LIBRARY.fullmatch(path):
            needs.add("libraries")
    return sorted(needs)
