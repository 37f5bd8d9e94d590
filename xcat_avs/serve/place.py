"""Where an osimage may be served from: a place that is an image directory, and nobody else's."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions, chdef
from xcat_avs.errors import AvsError
from xcat_avs.serve.sets import Target, read_record
from xcat_avs.system import mounts

# What genimage, liteimg, packimage, imgimport and avs_image_mgr put into a rootimgdir, and what is published there.
OURS = re.compile(
    r"rootimg(?:[._-].*)?|kernel(?:[._-].*)?|initrd[._-].*|addons|build_info|\.statelite|avs\.json|\.nfs[0-9a-f]+"
)
IMAGE = re.compile(r"rootimg(?:\..*)?|kernel")  # one of these is in every image directory
SHOWN = 5  # foreign names that an error lists


@dataclass(frozen=True)
class Surroundings:
    """What is around an image.

    public: directories that no image may be or hold, by what they are called. private: those in which none may lie either.
    others: the rootimgdir of every other osimage, by name. advice: how the osimage gets another rootimgdir.
    """

    public: Mapping[str, Path]
    private: Mapping[str, Path]
    others: Mapping[str, Path]
    advice: str


def around(target: Target, definitions: Definitions, private: Mapping[str, Path]) -> Surroundings:
    """What is around an osimage. private: directories in which none may lie, by what they are called."""
    image, installdir = target.image, definitions.installdir
    others = {
        name: other.rootimgdir(installdir)
        for name, other in definitions.osimages().items()
        if name != image.name
        and other.provmethod != "install"
        and (other.attributes.get("rootimgdir") or (other.osvers and other.osarch and other.profile))
    }
    public = {"INSTALLDIR": installdir, "TFTPDIR": definitions.tftpdir}
    default = installdir / image.store_path
    better = "DIRECTORY" if default == target.rootimgdir else default
    advice = f"Give the osimage a directory of its own: {chdef(definitions, image, f'rootimgdir={better}')}"
    return Surroundings(public, private, others, advice)


def refuse(target: Target, around: Surroundings) -> None:
    """Refuse a rootimgdir that is no place for an image, before anything is moved aside there.

    Raises AvsError that says what was found, and what to do.
    """
    image, rootimgdir = target.image, target.rootimgdir
    problem = _place(rootimgdir, around) or _neighbours(rootimgdir, around.others)
    problem = problem or _content(image, rootimgdir, around.others)
    if problem:
        raise AvsError(f"{image.name}: rootimgdir {rootimgdir} {problem}; nothing was changed. {around.advice}")


def is_image(directory: Path) -> bool:
    """Whether a directory that has no record holds what nodes can boot: an archive, or a tree."""
    return directory.is_dir() and any(
        name.startswith("rootimg") and IMAGE.fullmatch(name) for name in os.listdir(directory)
    )


def _real(path: Path) -> Path:
    """Where a name is, the links above it followed: the last part is what would be replaced, and may be a link."""
    return Path(os.path.realpath(path.parent)) / path.name if path.name else path


def _leads_through(path: Path, real: Path) -> bool:
    """Whether a name leads through a place, which may be a link to elsewhere: replaced, the name would lead nowhere."""
    return any(_real(parent) == real for parent in path.parents)


def _place(rootimgdir: Path, around: Surroundings) -> str:
    real = _real(rootimgdir)
    homes = {
        f"the home of {entry.pw_name}": Path(entry.pw_dir) for entry in pwd.getpwall() if os.path.isdir(entry.pw_dir)
    }
    homes = {name: home for name, home in homes.items() if home.is_absolute() and home != Path("/")}
    for name, directory in {**around.public, **around.private, "/home": Path("/home"), **homes}.items():
        for place in (_real(directory), Path(os.path.realpath(directory))):
            if real == place:
                return f"is {name}"
            if real in place.parents or _leads_through(directory, real):
                return f"holds {name} ({directory})"
            if name in around.private and place in real.parents:
                return f"lies in {name} ({directory}), which is private, and all that is served can be read by anyone"
    return "lies directly below /" if real.parent == Path("/") else ""


def _neighbours(rootimgdir: Path, others: Mapping[str, Path]) -> str:
    """Two osimages may share one directory on purpose, but none may lie in that of another."""
    real = _real(rootimgdir)
    for name, directory in others.items():
        other = _real(directory)
        if other in real.parents:
            return f"lies in that of the osimage {name} ({directory})"
        if real in other.parents or _leads_through(directory, real):
            return f"holds that of the osimage {name} ({directory})"
    for parent in real.parents:
        record = read_record(parent)
        if record is not None:
            return f"lies in {parent}, where tag {record.tag} of {record.osimage} was packed to"
    return ""


def _content(image: OsImage, rootimgdir: Path, others: Mapping[str, Path]) -> str:
    """What is wrong with what is there now, and would be moved aside."""
    if rootimgdir.is_symlink() or not os.path.lexists(rootimgdir):
        return ""
    if not rootimgdir.is_dir():
        return "is a file, and no directory"
    if str(_real(rootimgdir)) in mounts.mounts_below(rootimgdir):
        return "is the root of a mounted file system, which cannot be moved aside"
    problem = _owner(image, rootimgdir, others)
    if problem:
        return problem
    names = sorted(os.listdir(rootimgdir))
    foreign = [name for name in names if not OURS.fullmatch(name)]
    if foreign:
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        listed = ", ".join(ascii(name)[1:-1] for name in foreign[:SHOWN])
        return f"is no image directory: it holds {listed}{more}"
    if names and not any(IMAGE.fullmatch(name) for name in names):
        return f"is no image directory: it holds neither rootimg nor kernel, but {names[0]}"
    return ""


def _owner(image: OsImage, rootimgdir: Path, others: Mapping[str, Path]) -> str:
    """Whose set a real directory is, where that is another osimage which is not served from there on purpose."""
    record = read_record(rootimgdir)
    if record is None or record.osimage == image.name:
        return ""
    owner = others.get(record.osimage)
    if owner is not None and _real(owner) == _real(rootimgdir):
        return ""
    return (
        f"is the directory that tag {record.tag} of the osimage {record.osimage} was packed to, and nodes may boot from it: pack that "
        f"again with --force, which gives it a directory of another name, and remove {rootimgdir} when nothing leads to it any more"
    )
