"""Whether what is served is what was packed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.serve import sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import PackedSet, Target
from xcat_avs.tree.manifest import Manifest


def doubt(record: Optional[PackedSet], target: Target, history: Sequence[JournalEntry], image: OsImage) -> str:
    """Why it cannot be said what a target serves, where it should be something of the image; else "".

    history: the journal of the target, the oldest first.
    """
    directory = target.rootimgdir
    last = history[-1] if history and history[-1].tag else None
    ours = last is not None and last.source == image.name
    if record is None:
        damaged = os.path.lexists(directory / sets.RECORD)
        if not ours and not (damaged and target.image.name == image.name):
            return ""
        what = f"the record {directory / sets.RECORD} of what was packed is {'damaged' if damaged else 'gone'}"
        return what + (f"; by the journal it is tag {last.tag}" if last else "")
    # Another management node may have packed since: its journal is another one, and so is the set.
    if last is None or last.directory != sets.current(directory):
        return ""
    told, known = (record.osimage, record.source, record.tag), (last.osimage, last.source, last.tag)
    if told == known or image.name not in (record.source, last.source):
        return ""
    return f"{directory / sets.RECORD} says {' '.join(told)}, and the journal {' '.join(known)}"


def deviations(record: PackedSet, directory: Path, manifest: Optional[Manifest]) -> Iterator[str]:
    """What is in a served directory that is not as it was packed, in words. manifest: of the tag, None where it is not known."""
    present = sets.describe_files(directory)
    for name, facts in record.files.items():
        if name not in present:
            yield f"{name}: is gone"
        elif present[name] != facts:
            yield f"{name}: changed since"
        elif manifest and name in manifest and manifest[name].sha256 != facts["sha256"]:
            yield f"{name}: is not the one of the tag"
    for name in sorted(present.keys() - record.files.keys() - {sets.RECORD}):
        yield f"{name}: was not packed, and is served all the same"
