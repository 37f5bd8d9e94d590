"""logs: what the steps of a build said: of the last one here, running or failed or not, or of a version in the store."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from xcat_avs.build import logs
from xcat_avs.build.paths import BuildPaths
from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import NotFoundError, UsageError, nearest
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Raw, Report, Table, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.protocol import Store, Version
from xcat_avs.store.tags import find_revision, find_tag

STORED = "build_info"
LAST = "last"


@dataclass(frozen=True)
class Source:
    """The logs of one build, or of several: what is said of each, and how one is read. name: of what it is, in words."""

    name: str
    items: Sequence[dict[str, Any]]
    read: Callable[[dict[str, Any]], bytes]


def run(request: Request, site: Site) -> Report:
    if request.tag and request.revision:
        raise UsageError("give -t TAG or -r REV, not both")
    image = site.image(request)
    source = _here(image, site) if not (request.tag or request.revision) else None
    source = source or _stored(image, request, site.store())
    document: dict[str, Any] = {"osimage": image.name, "of": source.name}
    if not request.argument:
        return Report(_listing(image, source), {**document, "logs": list(source.items)})
    item = _find(source, request.argument)
    text = source.read(item).decode("utf-8", "replace")
    return Report([Raw(text.rstrip("\n"))], {**document, "logs": [item], "text": text})


def _here(image: OsImage, site: Site) -> Optional[Source]:
    """Those on this machine, where there are any."""
    running = str(site.running(image).get("build", ""))
    paths = BuildPaths.of(image, site.settings)
    found = {str(log.path): log for log in logs.found(paths, bool(running))}
    if not found:
        return None
    what = f"the build that runs now, by {running}" if running else "the last build here"
    return Source(what, [log.document() for log in found.values()], lambda item: found[item["path"]].path.read_bytes())


def _stored(image: OsImage, request: Request, store: Store) -> Source:
    """Those in the store."""
    if request.tag:
        version = Version(tag=find_tag(request.tag, store, image).name)
    else:
        version = Version(revision=find_revision(request.revision, store, image).number)
    items = []
    for name in ("steps", "addons"):
        try:
            results = json.loads(store.read(image, version, f"{STORED}/{name}.json"))
        except (NotFoundError, ValueError):
            results = []  # of avs_image_mgr, or without add-ons
        for result in results:
            log = os.path.basename(result["log"])
            items.append({"step": log[: -len(logs.SUFFIX)], "state": logs.DONE, "seconds": result["seconds"], "build": "",
                          "path": f"{STORED}/logs/{log}", "bytes": None})  # fmt: skip
    return Source(str(version), items, lambda item: store.read(image, version, item["path"]))


def _find(source: Source, step: str) -> dict[str, Any]:
    """The newest log of a step, or of an add-on."""
    matching = [item for item in source.items if item["step"] in (step, f"addon-{step}")]
    if not matching:
        names = list(dict.fromkeys(item["step"] for item in source.items))
        there = ", ".join(names) or "none"
        raise NotFoundError(f"there is no log {step!r} of {source.name}{nearest(step, names)}; there are {there}")
    return matching[-1]


def _listing(image: OsImage, source: Source) -> list[object]:
    rows = [
        (
            item["step"],
            item["state"],
            f"{item['seconds']:.0f}s" if item["seconds"] else "-",
            "-" if item["bytes"] is None else short_size(item["bytes"]),
            local(item["build"]) or LAST,
        )
        for item in source.items
    ]
    if not rows:
        return [as_lines([f"(no logs of {source.name})"])]
    earlier = any(item["build"] for item in source.items)  # else the column says nothing
    width = 5 if earlier else 4
    headers = ("LOG", "STATE", "TIME", "SIZE", "BUILD")[:width]
    table = Table(headers, [row[:width] for row in rows], [LEFT, LEFT, RIGHT, RIGHT, LEFT][:width])
    return [as_lines([f"{image.name}, {source.name}:"]), table]


MODE = Mode(
    "logs", run,
    {"tag": "of the build that is stored as this tag", "revision": "of the build that is stored as this revision"},
    argument="[STEP]",
)  # fmt: skip
