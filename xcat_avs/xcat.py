"""xCAT's own programs: run in this process's namespace, with its locks and habits."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Optional

from xcat_avs import command, mounts
from xcat_avs.errors import AvsError
from xcat_avs.image import OsImage

LOCK_DIRECTORY = Path("/var/lock/xcat")
SHARED_LOCK_WAIT = 60.0  # seconds
# Attributes that genimage and packimage put into shell lines as they are.
UNQUOTED = ("rootimgdir", "pkglist", "otherpkglist", "exlist", "profile", "osvers", "osarch", "kernelver", "krpmver",
            "netdrivers", "nodebootif", "otherifce", "kerneldir", "permission", "rootfstype", "synclists", "environvar", "driverupdatesrc")  # fmt: skip
# Those that it puts between double quotes.
QUOTED = ("postinstall", "pkgdir", "otherpkgdir")
BAD_IN_QUOTES = re.compile(r"[\"$`\\\n]")
# Attributes kept in the linuximage table; xCAT packs no image without a row there.
LINUXIMAGE = frozenset({"exlist", "kerneldir", "kernelver", "krpmver", "netdrivers", "nodebootif", "otherifce", "otherpkgdir",
                        "otherpkglist", "permission", "pkgdir", "pkglist", "postinstall", "rootimgdir", "addkcmdline", "driverupdatesrc"})  # fmt: skip
SAFE = re.compile(r"[A-Za-z0-9_./,:+@%=~-]*")


def root() -> Path:
    """XCATROOT."""
    return Path(os.environ.get("XCATROOT") or "/opt/xcat")


def program(name: str) -> Optional[str]:
    """The path of an xCAT program: in PATH, or in XCATROOT; None where xCAT is not."""
    for candidate in (name, str(root() / "bin" / name), str(root() / "sbin" / name)):
        found = command.find(candidate)
        if found:
            return found
    return None


def need(name: str) -> str:
    """The path of an xCAT program, or an error that says where it was looked for."""
    found = program(name)
    if found is None:
        raise AvsError(
            f"xCAT's program {name} is neither in PATH nor in {root()}; is xCAT installed, and XCATROOT right?"
        )
    return found


def bypass() -> dict[str, str]:
    """Environment to run an xCAT command in our own namespace instead of the daemon's."""
    path = os.pathsep.join([str(root() / "bin"), str(root() / "sbin"), command.environment()["PATH"]])
    return {"XCATBYPASS": "1", "PATH": path, "PERL_BADLANG": "0"}


def refuse_unsafe(image: OsImage) -> None:
    """Refuse values that mean something to the shell which xCAT hands them to."""
    for attribute in (*UNQUOTED, *QUOTED):
        value = image.attributes.get(attribute, "")
        bad = (
            BAD_IN_QUOTES.findall(value)
            if attribute in QUOTED
            else [char for char in value if not SAFE.fullmatch(char)]
        )
        if bad:
            held = ", ".join(repr(char) for char in sorted(set(bad)))
            raise AvsError(f"{image.name}: {attribute}={value!r} holds {held}, which xCAT would hand to a shell; "
                           f"change it with `chdef -t osimage {image.name} {attribute}=VALUE`")  # fmt: skip


def mending(image: OsImage) -> Sequence[str]:
    """The chdef that makes a definition fit for genimage and packimage; empty where it is."""
    wanted = {"osvers": image.osvers, "osarch": image.osarch, "profile": image.profile, "provmethod": "netboot"}
    missing = [f"{key}={value}" for key, value in wanted.items() if not image.attributes.get(key)]
    return ["chdef", "-t", "osimage", image.name, *missing] if missing else []


def refuse_incomplete(image: OsImage, rootimgdir: Path, build: bool) -> None:
    """Say what genimage (build) or packimage would say, but before anything runs, and how to mend it."""
    words = mending(image)
    if words:
        names = ", ".join(word.split("=")[0] for word in words[4:])
        raise AvsError(f"{image.name}: xCAT needs {names} in the definition; set what its name says with `{' '.join(words)}`, "
                       f"or let `avsimage -c create {image.name} --define` do it")  # fmt: skip
    chdef = f"chdef -t osimage {image.name}"
    if image.provmethod != "netboot":
        raise AvsError(
            f"{image.name} has provmethod {image.provmethod or 'unset'}, and xCAT builds and packs netboot images only"
        )
    if build and not image.attributes.get("pkglist"):
        raise AvsError(f"{image.name}: xCAT needs a pkglist in the definition; set one with `{chdef} pkglist=FILE`")
    # packimage asks for these two alone.
    if not (LINUXIMAGE if build else {"rootimgdir", "exlist"}) & image.attributes.keys():
        raise AvsError(
            f"{image.name}: xCAT needs a row in its linuximage table; make one with `{chdef} rootimgdir={rootimgdir}`"
        )


@contextmanager
def image_lock(rootimgdir: Path, pid: int) -> Iterator[None]:
    """Hold the lock that genimage, packimage and rmimage take for an image directory.

    pid: what they tell their users who holds it. Where the directory is not there yet, xCAT takes a lock of no name, the same
    for all images, for what is soon over: that is waited for, and shared among ourselves.
    """
    real = os.path.realpath(rootimgdir / "rootimg")
    with ExitStack() as stack:
        if not os.path.isdir(os.path.dirname(real)):
            deadline = time.monotonic() + SHARED_LOCK_WAIT
            stack.enter_context(_lock("", fcntl.LOCK_SH, rootimgdir, pid, deadline))
        stack.enter_context(_lock(real, fcntl.LOCK_EX, rootimgdir, pid))
        yield


@contextmanager
def _lock(real: str, kind: int, rootimgdir: Path, pid: int, deadline: float = 0) -> Iterator[None]:
    """One lock file of xCAT's: its name is made of the path of a root image, as it was resolved."""
    name = real.replace("/", ".") + "." + hashlib.md5(real.encode()).hexdigest()
    LOCK_DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(LOCK_DIRECTORY / name, "a+", encoding="ascii", errors="replace") as stream:
        while True:
            try:
                fcntl.flock(stream, kind | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                stream.seek(0)
                holder = stream.read(40).strip() or "unknown"
                where = rootimgdir if real else f"an image directory that is new, as {rootimgdir} is,"
                raise AvsError(
                    f"genimage, packimage or rmimage is at work on {where} (process {holder}); wait until it is done"
                ) from None
        stream.truncate(0)
        stream.write(str(pid))
        stream.flush()
        yield


@contextmanager
def seen_at(private: Path, public: Path, work: Path) -> Iterator[None]:
    """Have a private directory seen where xCAT writes, for this process and its children only.

    The directory above is overlaid, so that nothing is made in it, and no link in it moves while xCAT writes.
    work: a private directory for the overlay's own data.
    """
    above = public.parent
    while not above.is_dir():
        above = above.parent
    real = Path(os.path.realpath(above))
    point = real / public.relative_to(above)
    with ExitStack() as stack:
        work.mkdir(parents=True, mode=0o700)
        stack.enter_context(mounts.mounted("tmpfs", work, "tmpfs", 0, "mode=700"))
        for name in ("upper", "work"):
            (work / name).mkdir(mode=0o755)
        options = f"lowerdir={real},upperdir={work}/upper,workdir={work}/work"
        stack.enter_context(mounts.mounted("overlay", real, "overlay", 0, options))
        if point.is_symlink():
            point.unlink()
        point.mkdir(parents=True, exist_ok=True, mode=0o755)
        stack.enter_context(mounts.bind(private, point))
        yield


@contextmanager
def private_locks(work: Path) -> Iterator[None]:
    """Let genimage or packimage take its lock in a private directory: we hold, or do not need, the public one."""
    LOCK_DIRECTORY.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with mounts.bind(work, LOCK_DIRECTORY):
        yield


def collapse(nodes: Sequence[str]) -> str:
    """Node names as the noderange xCAT writes: `cn001-cn004,login1`."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    plain: list[str] = []
    for node in sorted(set(nodes)):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", node)
        if match:
            groups.setdefault((match.group(1), match.group(3), len(match.group(2))), []).append(int(match.group(2)))
        else:
            plain.append(node)
    parts: list[str] = []
    for (prefix, suffix, width), numbers in sorted(groups.items()):
        first = last = -2
        for number in [*sorted(numbers), -1]:
            if number == last + 1 and number > 0:
                last = number
                continue
            if last >= 0:
                names = [f"{prefix}{edge:0{width}d}{suffix}" for edge in (first, last)]
                parts.append(names[0] if first == last else ",".join(names) if last == first + 1 else "-".join(names))
            first = last = number
    return ",".join([*parts, *plain])
