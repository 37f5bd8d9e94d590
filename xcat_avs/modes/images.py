"""images: every osimage, whether anything of it is stored, built or served or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Optional

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage, stored_images
from xcat_avs.errors import AvsError
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.serve import place, sets
from xcat_avs.serve.nodes import counts
from xcat_avs.site import Site
from xcat_avs.store.protocol import Summary
from xcat_avs.system import disk

HEADERS = ("OSIMAGE", "REVISION", "DATE", "TAGS", "NEWEST TAG", "SIZE", "ON DISK", "SERVED", "NODES", "RUNNING")
ALIGN = [LEFT, RIGHT, LEFT, RIGHT, LEFT, RIGHT, RIGHT, LEFT, RIGHT, LEFT]
OTHERS = "(not packed here)"


def run(request: Request, site: Site) -> Report:
    named = bool(request.image or request.profile)
    images = [site.image(request)] if named else site.narrowed(request)
    usable = stored_images(images)
    stored = _stored(usable, site)
    places = {image.name: site.places(image) for image in usable}
    nodes, running = counts(site.definitions.nodes()), site.all_running()
    local_store = site.local_store()
    used = disk.used(site.runner(), {**places, "": [local_store] if local_store else []})
    documents = [
        _document(image, site, stored.get(image.name, Summary()), used.get(image.name))
        | {"nodes": nodes.get(image.name, 0), "running": running.get(image.name, {})}
        for image in images
    ]
    store = {"url": site.settings.store, "bytes": used[""] if local_store else None}
    blocks: list[object] = [Table(HEADERS, [_row(item) for item in documents], ALIGN) if documents else "(no osimages)"]
    if local_store:
        blocks.append(as_lines([f"The store {site.settings.store} takes {short_size(used[''])}"]))
    return Report(blocks, {"osimages": documents, "store": store})


def _stored(images: Sequence[OsImage], site: Site) -> Mapping[str, Summary]:
    store = site.store(recognize=False)
    try:  # what is on disk and served is told also where the store is gone, or does not answer
        return store.summaries(images)
    except AvsError as err:
        site.progress.warn(err.text)
        return {}


def _document(image: OsImage, site: Site, stored: Summary, used: Optional[int]) -> dict[str, Any]:
    rootimgdir = site.target(image).rootimgdir
    record = sets.read_record(rootimgdir) if used is not None else None
    return {
        "osimage": image.name, "osvers": image.osvers, "osarch": image.osarch, "profile": image.profile,
        "provmethod": image.provmethod, **asdict(stored), "on_disk": used, "rootimgdir": str(rootimgdir),
        "tag": record.tag if record else "", "source": record.source if record else "",
        "foreign": used is not None and record is None and place.is_image(rootimgdir),
    }  # fmt: skip


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    tag = item["tag"] + (f" of {item['source']}" if item["source"] not in ("", item["osimage"]) else "")
    running = "; ".join(f"{activity} by {holder}" for activity, holder in item["running"].items())
    cells = (
        str(item["revision"] or ""), local(item["date"]), str(item["tags"] or ""), item["newest"], _size(item["bytes"]),
        _size(item["on_disk"]), tag or (OTHERS if item["foreign"] else ""), str(item["nodes"] or ""), running,
    )  # fmt: skip
    return (item["osimage"], *(cell or "-" for cell in cells))


def _size(size: Optional[int]) -> str:
    return short_size(size) if size else ""


MODE = Mode("images", run, image=False)
