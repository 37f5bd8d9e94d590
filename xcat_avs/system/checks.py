"""Looks at the machine: programs, Python, rights, paths, space, clock, and what killed runs have left."""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

from xcat_avs.errors import AvsError, CommandError
from xcat_avs.system import command, libc, mounts, provides, scratch, trust
from xcat_avs.system.findings import FAIL, OK, WARN, Finding
from xcat_avs.system.runner import Runner

LIBRARIES = ("sh", "typer", "tabulate")
# How a program is asked for its version, where it is not --version; those without an answer are not asked.
VERSION = {"fsvs": "-V", "mksquashfs": "-version", "unsquashfs": "-version", "rpm2cpio": ""}
NUMBER = re.compile(r"\bv?(\d+\.\d+[\w.~+-]*)")
SECONDS = 20.0  # for the versions of all programs together
CAP_SYS_ADMIN = 21
FEW = 1000  # files that can still be made
SMALL = 64 << 20  # bytes, for what is not as large as an image


def programs(needed: Mapping[str, Sequence[str]], missing: str = FAIL) -> Iterator[Finding]:
    """Programs by what needs them: one finding for all that are missing, and one for each of what needs them.

    missing: the result where any is.
    """
    absent = {name: why for why, names in needed.items() for name in names if command.find(name) is None}
    if absent:
        details = [f"{name}: {why}" for name, why in absent.items()]
        listed = ", ".join(map(os.path.basename, absent))
        yield Finding(missing, f"not installed: {listed}", tuple(details), provides.install([*absent]))
    versions = _versions([name for names in needed.values() for name in names if name not in absent])
    for why, wanted in needed.items():
        there = [f"{os.path.basename(name)} {versions.get(name, '')}".rstrip() for name in wanted if name not in absent]
        if there:
            yield Finding(OK, f"{why}: {', '.join(dict.fromkeys(there))}")


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Program -> its version, as far as it says one."""
    asked = [name for name in dict.fromkeys(names) if VERSION.get(name, "-") and provides.known(name)]
    try:
        outputs = Runner(timeout=SECONDS).capture_all([[name, VERSION.get(name, "--version")] for name in asked])
    except (CommandError, ImportError):
        return {}  # they are there, which is what counts
    found = {name: NUMBER.search(f"{output.text}\n{output.stderr}") for name, output in zip(asked, outputs)}
    return {name: match.group(1).rstrip(".") for name, match in found.items() if match}


def python() -> Iterator[Finding]:
    """Python and the libraries."""
    import importlib.metadata

    where = f"Python {platform.python_version()} ({sys.executable})"
    versions, missing = [], []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        fix = f"{sys.executable} -m pip install {' '.join(missing)}"
        yield Finding(FAIL, f"{where}: not installed: {', '.join(missing)}", fix=fix)
    else:
        yield Finding(OK, f"{where}: {', '.join(versions)}")


def rights() -> Iterator[Finding]:
    """Whether this user can build and pack."""
    if os.geteuid() != 0:
        text = "not root: create, pack and verify must be, and not all of what follows can be seen"
        yield Finding(WARN, text, fix="sudo avsimage -c check")
        return
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if match and not int(match.group(1), 16) >> CAP_SYS_ADMIN & 1:
        text = "root without CAP_SYS_ADMIN, as in a container: create, pack and verify cannot mount"
        yield Finding(FAIL, text, fix="run it on the machine itself, or in a privileged container")
    else:
        yield Finding(OK, "root, and may mount")


def own_places(places: Mapping[str, Path], names: Sequence[str], public: Iterable[Path]) -> Iterator[Finding]:
    """Directories of our own: nobody else may write on the way to them, nor look into the first, and they are not served.

    places: by what they are called. names: the subdirectories of the first one. public: what is served to anyone.
    """
    for number, (what, path) in enumerate(places.items()):
        served = [top for top in public if _within(path, top)]
        if served:
            yield Finding(
                FAIL,
                f"{what}: {path} lies in {served[0]}, which is served to anyone",
                fix="have it elsewhere: [paths] in avs.conf",
            )
        elif os.geteuid() == 0 and not os.access(_there(path), os.W_OK):
            point = next(str(top) for top in (_there(path), *_there(path).parents) if os.path.ismount(top))
            yield Finding(FAIL, f"{what}: {path} cannot be written", fix=f"mount -o remount,rw {point}")
        elif number == 0 and path.exists() and os.geteuid() == 0 and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding(WARN, f"{what}: {path} can be read by others than root", fix=f"chmod go-rwx {path}")
        else:
            yield trusted(what, path, names if number == 0 else None)


def trusted(what: str, path: Path, names: Optional[Sequence[str]] = None) -> Finding:
    """Whether others than root could change a file or directory. names: see trust.refuse_foreign; None for a plain one."""
    try:
        if names is None:
            trust.refuse(path)
        else:
            trust.refuse_foreign(path, names)
    except PermissionError as err:
        return Finding(WARN, f"{what}: {path}: {err.strerror}", fix="sudo avsimage -c check")
    except AvsError as err:
        text, _, fix = err.text.rpartition("; ")
        return Finding(FAIL, f"{what}: {text or fix}", fix=fix)
    return Finding(OK, f"{what}: {path}" + ("" if path.exists() else " (not there yet)"))


def _there(path: Path) -> Path:
    """A path, or what there is above it."""
    while not path.exists():
        path = path.parent
    return path


def _within(path: Path, top: Path) -> bool:
    real, above = os.path.realpath(path), os.path.realpath(top)
    return os.path.commonpath((real, above)) == above


def space(needs: Mapping[str, tuple[Path, int]], why: str) -> Iterator[Finding]:
    """What is free where files are written, of each file system once. needs: by what they are called, with the bytes.

    why: where the bytes come from.
    """
    seen: dict[int, list[str]] = {}
    wanted: dict[int, tuple[Path, int]] = {}
    for what, (path, need) in needs.items():
        there = _there(path)
        device = there.stat().st_dev
        seen.setdefault(device, []).append(what)
        wanted[device] = (wanted.get(device, (there, 0))[0], wanted.get(device, (there, 0))[1] + max(need, SMALL))
    for device, (path, need) in wanted.items():
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
        result = FAIL if free < need else WARN if free < 2 * need else OK
        few = status.f_files and status.f_favail < FEW
        files = f", and {status.f_favail} files can be made" if few else ""
        text = (
            f"{_size(free)} free for {', '.join(seen[device])} ({path}){files}; about {_size(need)} are needed, {why}"
        )
        fix = "" if result == OK and not few else f"make room on the file system of {path}, for example of old versions"
        yield Finding(FAIL if few else result, text, fix=fix)


def _size(number: int) -> str:
    return f"{number / 2**30:.1f}G" if number >= 2**30 else f"{number >> 20}M"


def left_overs(state: Path, private: Iterable[tuple[Path, str]]) -> Iterator[Finding]:
    """Mounts, loop devices and directories that a run has left. private: where runs have directories, and their prefix."""
    found = [
        Finding(FAIL, f"mounted in the state directory: {point}", fix=f"umount {point}")
        for point in reversed(mounts.mounts_below(state))
        if point != os.path.realpath(state)
    ]
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        backing = entry.read_text(encoding="utf-8", errors="replace").strip()
        if _within(Path(backing), state):
            device = f"/dev/{entry.parts[3]}"
            found.append(Finding(FAIL, f"{device} is attached to {backing}", fix=f"losetup -d {device}"))
    for parent, prefix in private:
        for path in scratch.left(parent, prefix):
            text = f"{path} is of a run that was killed; the next one of its kind removes it"
            found.append(Finding(WARN, text, fix=f"rm -r {path}"))
    yield from found or [Finding(OK, "no mounts, loop devices or directories are left behind by killed runs")]


def clock(latest: Mapping[str, float]) -> Iterator[Finding]:
    """Whether the clock can be right. latest: seconds since the epoch of what has happened, by what it is."""
    now, said = time.time(), time.strftime("%Y-%m-%d %H:%M:%S %Z")
    ahead = [what for what, at in latest.items() if at > now + 1]
    fix = "timedatectl set-ntp true"
    if ahead:
        yield Finding(FAIL, f"the clock is behind ({said}): {', '.join(ahead)} would be of the future", fix=fix)
    elif not libc.clock_synchronized():
        yield Finding(WARN, f"the clock says {said}, and the kernel does not know it to be synchronized", fix=fix)
    else:
        yield Finding(OK, f"the clock says {said}, and is synchronized")
