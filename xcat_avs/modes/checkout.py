"""checkout: a version as a directory of files, proven by its manifest."""

from __future__ import annotations

import os
from pathlib import Path

from xcat_avs.errors import counted
from xcat_avs.modes import Mode
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.handout import hand_out
from xcat_avs.store.protocol import MANIFEST
from xcat_avs.store.tags import find_version


def run(request: Request, site: Site) -> Report:
    image, store = site.image(request), site.store()
    version, number = find_version(request.tag, request.revision, store, image)
    directory = Path(os.path.abspath(request.argument))
    site.progress.begin(f"checking out {version}")
    try:
        found = hand_out(store, image, version, directory, site.progress.warn)
    finally:
        site.progress.end()
    proven = (directory / MANIFEST).is_file()
    end = "all of them what its manifest says" if proven else "which no manifest proves"
    line = f"Checked out {image.name} {version} into {directory}: {counted(len(found), 'path')}, {end}"
    return Report([as_lines([line])], {
        "osimage": image.name, "tag": version.tag, "revision": number, "directory": str(directory), "paths": len(found),
        "proven": proven,
    })  # fmt: skip


MODE = Mode(
    "checkout", run,
    {"tag": "the tag to check out", "revision": "the revision to check out (default: the newest)"},
    private=True, argument="DIR",
)  # fmt: skip
