"""A tree that is there already, in place of a generator (--from)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from xcat_avs import generate
from xcat_avs.errors import AvsError
from xcat_avs.generate import InstallOptions, Job
from xcat_avs.system import mounts
from xcat_avs.system.runner import Runner
from xcat_avs.tree.inside import inside

XCATINFO, POSTSCRIPTS = "opt/xcat/xcatinfo", "xcatpost"
# packimage writes this line for root, always with this date; what stood there before is gone.
ROOT_LINE = re.compile(rb"^root:([^:\n]*)(:13880:0:99999:7:::)$", re.MULTILINE)
LOCKED = re.compile(rb"[*!x]*")


def strip_packimage(root: Path) -> list[str]:
    """Take out of a copied tree what xCAT's packimage has put into it; returns what that was, for the report.

    A tree that it never packed is left as it is. Files of synclists, and /etc/localtime, cannot be told from the image's.
    """
    info = inside(root, XCATINFO)
    if info.is_symlink() or not info.is_file() or b"IMAGEUUID=" not in info.read_bytes():
        return []
    info.unlink()
    found = [f"/{XCATINFO}"]
    if (root / POSTSCRIPTS).is_dir() and not (root / POSTSCRIPTS).is_symlink():
        mounts.remove_tree(root / POSTSCRIPTS)
        found.append(f"/{POSTSCRIPTS}")
    shadow = inside(root, "etc/shadow", follow=True)
    data = shadow.read_bytes() if shadow.is_file() else b""
    match = ROOT_LINE.search(data)
    if match and not LOCKED.fullmatch(match.group(1)):
        shadow.write_bytes(data[: match.start(1)] + b"*" + data[match.end(1) :])
        found.append("root's password in /etc/shadow, which is locked now")
    return found


ARCHIVES = re.compile(r"rootimg\.[a-z0-9.]+")


def copy_tree(source: Path, target: Path, runner: Runner) -> None:
    """Copy a directory laid out like a rootimgdir, with all that its files carry; archives stay behind."""
    taken = sorted(name for name in os.listdir(source) if not ARCHIVES.fullmatch(name) and name != "build_info")
    top = os.path.realpath(source)
    for name in taken:
        real = os.path.realpath(source / name)
        if real != os.path.join(top, name) and not real.startswith(top + os.sep):
            raise AvsError(f"{source / name} is a link that leads out of {source}; put the file itself there")
    inner = [
        point for name in taken for point in mounts.mounts_below(source / name) if point != os.path.join(top, "rootimg")
    ]
    if inner:
        raise AvsError(
            f"mounted below {source}: {', '.join(inner)}; unmount it, or its files would be taken for the image's"
        )
    mounts.remove_tree(target)
    target.mkdir(parents=True, mode=0o700)
    # -H: what is a link in DIR itself is taken for what it leads to. cp keeps owners, modes, times,
    # links, hard links, sparse files, ACLs and xattrs, capabilities among them. It runs in DIR, whose name may be
    # no UTF-8, which an argument has to be.
    runner.run(
        ["cp", "-a", "-H", "--reflink=auto", "--", *(f"./{name}" for name in taken), str(target.absolute())],
        cwd=source,
    )


class Copy:
    """Stands for the generator where --from brings the tree."""

    name = "copy of a directory"

    def __init__(self, source: Path, install_options: InstallOptions) -> None:
        self._root = source / "rootimg"
        self._install_options = install_options

    def programs(self) -> tuple[str, ...]:
        counts = generate.rpm_database(self._root) and not (self._root / "usr/bin/rpm").exists()
        return ("cp", "rpm") if counts else ("cp",)

    def identity(self) -> str:
        return self.name

    def generate(self, job: Job) -> None:
        raise AssertionError("--from is copied, not generated")

    def install(self, job: Job, names: Sequence[str]) -> None:
        generate.choose(job.image, "auto", self._install_options).install(job, names)

    def remove(self, job: Job, names: Sequence[str]) -> None:
        generate.choose(job.image, "auto", self._install_options).remove(job, names)

    def upgrade(self, job: Job) -> None:
        generate.choose(job.image, "auto", self._install_options).upgrade(job)
