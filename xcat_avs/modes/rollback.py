"""rollback: serve a set that is still there again, at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.modes import Mode
from xcat_avs.pack.job import after_publish, check_nodeset, check_place, record_publish, warn_altered
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.serve import place, publish, sets
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    rootimgdir = image.rootimgdir(site.definitions.installdir)
    check_nodeset(request, site)
    check_place(site, image)
    with site.lock(image, "pack"), site.image_lock(rootimgdir):
        publish.finish_interrupted(rootimgdir)
        before = sets.current(rootimgdir)
        if before is None:
            raise NotFoundError(f"{image.name}: {rootimgdir} was not published by avsimage; pack a tag first")
        served = sets.read_record(rootimgdir)
        if served is not None and served.osimage != image.name:
            raise AvsError(f"{image.name}: what {rootimgdir} serves was packed as {served.osimage}; roll that one back")
        wanted = _wanted(request, image, rootimgdir, before)
        warn_altered(site, image, rootimgdir)
        if wanted == before:
            more, document, code = after_publish(request, site, image, changed=False)
            return Report(
                [as_lines([f"{image.name} serves {wanted} already; nothing was changed", *more])],
                {"osimage": image.name, "directory": wanted, **document, "changed": False}, code,
            )  # fmt: skip
        _refuse_damaged(request, image, rootimgdir, wanted)
        publish.switch(rootimgdir, wanted, site.progress.warn)
        record = sets.read_record(rootimgdir)  # None: a directory that genimage and packimage left
        record_publish(site, image, "rollback", record, wanted, before, request.message)
    packed = f", packed {local(record.date)} by {record.user}," if record else ""
    lines = [f"Serving {wanted} again{packed} in place of {before}"]
    more, document, code = after_publish(request, site, image)
    facts = {"osimage": image.name, "directory": wanted, "before": before, "packed": asdict(record) if record else {}}
    return Report([as_lines([*lines, *more])], {**facts, **document, "changed": True}, code)


def _wanted(request: Request, image: OsImage, rootimgdir: Path, before: str) -> str:
    """The name of the set to serve. before: the one that is served."""
    if not request.tag:
        wanted = sets.previous(rootimgdir)
        if not wanted:
            raise NotFoundError(f"{image.name}: no set was served before {before}; choose one with -t")
        return wanted
    found = sets.kept(rootimgdir, image.name)
    kept = {
        found[name].tag: name for name in sorted(found, key=lambda name: found[name].date)
    }  # the newest of each tag
    if request.tag not in kept:
        hint = nearest(request.tag, kept) or f"; there is {', '.join(sorted(kept)) or 'none'}"
        raise NotFoundError(f"{image.name}: no packed set of tag {request.tag!r} is kept{hint}; or pack it again")
    return kept[request.tag]


def _refuse_damaged(request: Request, image: OsImage, rootimgdir: Path, wanted: str) -> None:
    """Refuse to serve what is not what was packed, or of another osimage, or no image at all."""
    directory = rootimgdir.parent / wanted
    record = sets.read_record(directory)
    if record is None and not place.is_image(directory):
        raise AvsError(
            f"{image.name}: {directory} holds neither an archive of a root image nor a tree; pack a tag instead"
        )
    if record is not None and record.osimage != image.name:
        raise AvsError(
            f"{image.name}: {directory} was packed as {record.osimage}; choose a set of this osimage with -t"
        )
    text = sets.altered(rootimgdir, wanted, sums=not request.fast)
    if record is not None and text:
        raise AvsError(
            f"{image.name}: {text}; nothing was changed. Pack it again with `avsimage -c pack {image.name} -t {record.tag}`, or choose another "
            f"with -t; if somebody has packed there by hand and nodes shall have just that, remove {directory / sets.RECORD} first"
        )


MODE = Mode(
    "rollback", "serve the set that was served before again, in seconds", run,
    {"tag": "another tag whose set is still kept", "message": "why, for the journal"},
)  # fmt: skip
