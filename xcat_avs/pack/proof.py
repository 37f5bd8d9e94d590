"""Prove that an archive holds exactly what the manifest says, and say what its form cannot hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Optional

from xcat_avs.errors import AvsError
from xcat_avs.pack import members
from xcat_avs.pack.archive import Form
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import SELINUX, Entry, Manifest

SHOWN = 10  # paths that an error lists
SQUASHED = ("user.", "trusted.", "security.")  # the extended attributes that mksquashfs takes
SECONDS = 2**32  # newc and squashfs count seconds from 1970 in 32 bits
# method -> the types of which it makes no hard links, and how that is said; mksquashfs has numbers of its own for links
KEPT_APART = {
    "tar": (("char", "block", "fifo"), "devices and FIFOs"), "squashfs": (("link",), "symbolic links"),
}  # fmt: skip


def below(stored: Mapping[str, Entry], top: str) -> Manifest:
    """The part of a manifest at a directory and below it, by the path from there; the directory itself is `.`."""
    start = len(top) + 1
    found = {
        entry.path[start:] or ".": entry for path, entry in stored.items() if path == top or path.startswith(f"{top}/")
    }
    return chosen(found, found)


def chosen(entries: Mapping[str, Entry], paths: Collection[str]) -> Manifest:
    """The entries of some paths; a file is the hard link of the first name that is among them."""
    first: dict[str, str] = {}
    found: Manifest = {}
    for path in sorted(paths):
        entry = entries[path]
        # The hard link is a path in the whole manifest; this part may begin further down.
        name = first.setdefault(entry.hardlink or entry.path, path)
        found[path] = entry._replace(path=path, hardlink="" if name == path else name)
    return found


def look_again(wanted: Mapping[str, Entry], root: Path, paths: Iterable[str]) -> tuple[Manifest, list[str]]:
    """Take for some paths, and all below them, what the tree at root has there now.

    Returns the manifest with them, and which of them are others by that.
    """
    tops = set(paths)
    now = {path: scan.look(str(root), path) for top in tops for path in [top, *_inside(root, top)]}
    prefixes = tuple(f"{top}/" for top in tops)
    before = {path: entry for path, entry in wanted.items() if path in tops or path.startswith(prefixes)}
    found = chosen(wanted, wanted.keys() - before.keys())
    found.update((path, entry) for path, entry in now.items() if entry is not None)
    others = [path for path in before.keys() | now.keys() if _differ(before.get(path), now.get(path))]
    return found, sorted(others)


def _differ(old: Optional[Entry], new: Optional[Entry]) -> bool:
    if old is None or new is None:
        return old is not new
    return bool(old.differs(new))


def _inside(root: Path, top: str) -> Iterator[str]:
    full = root / top
    if full.is_dir() and not full.is_symlink():
        yield from (f"{top}/{path}" for path, _ in scan.walk(str(full)))


def place(root: Path, path: str) -> str:
    """Where a path of the image is in its tree when links of the image lead there; itself where they lead out of it."""
    real, top = os.path.realpath((root / path).parent), os.path.realpath(root)
    return (
        os.path.relpath(os.path.join(real, os.path.basename(path)), top) if f"{real}/".startswith(f"{top}/") else path
    )


def losses(wanted: Mapping[str, Entry], form: Form, own: bool) -> Iterator[str]:
    """What the form, or the program that writes it, does not keep of an image: a sentence for each kind."""
    method = form.method
    lost = [path for path, entry in wanted.items() if _held(entry, form, own).xattrs != _plain(entry).xattrs]
    if lost and method == "squashfs" and own:
        yield f"{method} loses the ACLs of {_some(lost)}; --method tar keeps them"
    elif lost:
        yield f"{method} loses the capabilities, ACLs and other xattrs of {_some(lost)}; --method tar keeps them"
    late = [path for path, entry in wanted.items() if not 0 <= entry.mtime // 10**9 < SECONDS]
    if late and method != "tar":
        yield f"{method} holds times from 1970 to 2106, and gives another one to {_some(late)}; --method tar keeps them"
    kinds, named = KEPT_APART.get(method, ((), ""))
    apart = [path for path, entry in wanted.items() if entry.hardlink and entry.type in kinds]
    if apart:
        yield f"{method} makes {named} of their own of the hard links {_some(apart)}; --method cpio keeps them"


def _some(paths: list[str]) -> str:
    """How many paths, and one of them."""
    return f"{len(paths)} paths, {paths[0]} among them" if len(paths) > 1 else paths[0]


def _plain(entry: Entry) -> Entry:
    """The attributes without the SELinux label, which a node sets itself."""
    kept = tuple(item for item in entry.xattrs if item[0] != SELINUX) if entry.xattrs else ()
    return entry if kept == entry.xattrs else entry._replace(xattrs=kept)


def _held(entry: Entry, form: Form, own: bool) -> Entry:
    """The entry that a perfect archive of this form would have."""
    entry = _plain(entry)
    if entry.xattrs and form.method != "tar":
        own_squashfs = form.method == "squashfs" and own  # packimage makes its squashfs from a cpio archive
        kept = tuple(item for item in entry.xattrs if item[0].startswith(SQUASHED)) if own_squashfs else ()
        entry = entry._replace(xattrs=kept)
    entry = _apart(entry, form)
    if form.method != "tar":
        entry = entry._replace(mtime=entry.mtime // 10**9 % SECONDS * 10**9)
    return entry


def _apart(entry: Entry, form: Form) -> Entry:
    """An entry without what only some versions of a packer keep."""
    kinds, _ = KEPT_APART.get(form.method, ((), ""))
    return entry._replace(hardlink="") if entry.hardlink and entry.type in kinds else entry


def prove(file: Path, form: Form, wanted: Mapping[str, Entry], runner: Runner,
          optional: Optional[Collection[str]] = None) -> None:  # fmt: skip
    """Read an archive back and compare it with what it is to hold. Raises AvsError that names the paths.

    optional: given for an archive of packimage, paths that it may hold besides; then times are not compared.
    """
    if not wanted.keys() - {"."}:
        raise AvsError("the exlist leaves out the whole image: there is nothing to pack")
    own = optional is None
    found = members.read(file, form, runner)
    found = {
        path: _apart(_plain(entry), form)
        for path, entry in found.items()
        if path in wanted or path not in (optional or ())
    }
    compare(found, {path: _held(entry, form, own) for path, entry in wanted.items()}, times=own)


def compare(found: Mapping[str, Entry], wanted: Mapping[str, Entry], times: bool) -> None:
    """Raise AvsError for an archive that differs, naming the worst kind of difference first."""
    merged = [path for path in sorted(found.keys() & wanted.keys()) if _merged(path, found, wanted)]
    if merged:
        raise AvsError("unrelated files became hard links of each other in the archive, because cpio keeps only 32 bits of the numbers "
                       "that a file system gives them; set [pack] packer = own, or take --method tar:",
                       [f"{_shown(path)} became {_shown(found[path].hardlink)}" for path in merged[:SHOWN]])  # fmt: skip
    missing, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise AvsError(f"the archive lacks {len(missing)} of {len(wanted)} paths:", _listed(missing))
    if more:
        raise AvsError(f"the archive holds {len(more)} paths that the tag does not hold:", _listed(more))
    differences = manifest.compare(wanted, found, times)
    if differences:
        raise AvsError(f"the archive differs from the tag in {len(differences)} paths:", _listed(differences))


def _merged(path: str, found: Mapping[str, Entry], wanted: Mapping[str, Entry]) -> bool:
    """Whether two files of the tag are hard links of each other in the archive."""
    first = found[path].hardlink
    return bool(first) and first in wanted and (wanted[path].hardlink or path) != (wanted[first].hardlink or first)


def _shown(text: str) -> str:
    return ascii(text)[1:-1]


def _listed(lines: list[str]) -> list[str]:
    return [_shown(line) for line in lines[:SHOWN]]
