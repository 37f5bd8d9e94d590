"""What nodes would boot of a tag, to be tried before they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Optional

from xcat_avs.definitions import exlist
from xcat_avs.pack import proof
from xcat_avs.pack.job import PackJob
from xcat_avs.pack.packing import Tagged, alone
from xcat_avs.serve import booted, contents, sets
from xcat_avs.serve.sets import PackedSet
from xcat_avs.site import Site
from xcat_avs.store.protocol import Version
from xcat_avs.store.trees import stored_manifest
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree.inside import ROOT


class Trial(NamedTuple):
    """A set, and the directory that it is in. packed: whether it was packed for this."""

    directory: Path
    record: PackedSet
    packed: bool


@contextmanager
def bootable(site: Site, job: PackJob, tagged: Tagged) -> Iterator[Trial]:
    """Yield the set that a pack would serve: one that is there already, or one that is packed for the block."""
    found = _there(job, tagged)
    if found is not None:
        yield found
        return
    site.private(site.settings.state)
    with own_directory(site.settings.state / booted.DIRECTORY, "set.") as own:
        new = own / "set"
        new.mkdir()
        with alone(site, job, tagged) as packing:
            record = packing.pack(new)
        yield Trial(new, record, packed=True)


def _there(job: PackJob, tagged: Tagged) -> Optional[Trial]:
    """The set that is served, or was, where it is just what a pack would make, and whole."""
    rootimgdir, wanted = job.target.rootimgdir, (tagged.image.name, tagged.tag.source, job.inputs, tagged.version)
    for name, record in sets.kept(rootimgdir, job.target.image.name, tagged.tag.name).items():
        directory = rootimgdir.parent / name
        same = (record.source, record.revision, record.inputs, record.version) == wanted
        if same and not contents.changes(directory, record.files, sums=True):
            return Trial(directory, record, packed=False)
    return None


def file_sizes(job: PackJob, tagged: Tagged) -> Optional[list[int]]:
    """The sizes of the files that the archive holds, 0 for each other path; None where the tag has no manifest."""
    stored = stored_manifest(tagged.store, tagged.image, Version(tag=tagged.tag.name))
    if stored is None:
        return None
    found = proof.below(stored, ROOT)
    kept = exlist.select([*found], job.excluded, job.included)
    return [found[path].size if found[path].type == "file" and not found[path].hardlink else 0 for path in kept]
