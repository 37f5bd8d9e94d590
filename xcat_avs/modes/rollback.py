"""rollback: serve a set that is still there again, at once."""

from __future__ import annotations

from dataclasses import asdict

from xcat_avs.clock import local
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.modes import Mode
from xcat_avs.pack.serving import Result, conclude
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.serve import journal, nodeset, place, publish, sets
from xcat_avs.serve.journal import Change
from xcat_avs.serve.sets import Target
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    target = site.target(site.image(request))
    image, rootimgdir = target.image, target.rootimgdir
    if request.nodeset:
        nodeset.need(site.definitions)
    site.check_place(target)
    with site.lock(image, "pack"), site.image_lock(rootimgdir):
        publish.finish_interrupted(rootimgdir)
        before = _served(target)
        wanted = _wanted(request.tag, target, before)
        publish.warn_altered(target, site.progress.warn)
        if wanted == before:
            lines, facts = (
                [f"{image.name} serves {wanted} already; nothing was changed"],
                {"osimage": image.name, "directory": wanted},
            )
            return conclude(request, site, Result(image, lines, facts, changed=False))
        _refuse_damaged(target, wanted, fast=request.fast)
        publish.switch(rootimgdir, wanted, site.progress.warn)
        with publish.served(site.progress.say, f"{image.name} serves {wanted} again"):
            record = sets.read_record(rootimgdir)  # None: a directory that genimage and packimage left
            change = Change(image.name, "rollback", wanted, before, record=record)
            problem = journal.record(site.journal_file(image), site.identity, change, request.message)
    packed = f", packed {local(record.date)} by {record.user}," if record else ""
    lines = [f"Serving {wanted} again{packed} in place of {before}"]
    document = {
        "osimage": image.name,
        "directory": wanted,
        "before": before,
        "packed": asdict(record) if record else {},
    }
    with publish.served(site.progress.say, f"{image.name} serves {wanted} again"):
        return conclude(request, site, Result(image, lines, document, problem=problem))


def _served(target: Target) -> str:
    """The name of the set that is served, where it is one of this osimage."""
    image, rootimgdir = target.image, target.rootimgdir
    before = sets.current(rootimgdir)
    if before is None:
        raise NotFoundError(f"{image.name}: {rootimgdir} was not published by avsimage; pack a tag first")
    record = sets.read_record(rootimgdir)
    if record is not None and record.osimage != image.name:
        raise AvsError(f"{image.name}: what {rootimgdir} serves was packed as {record.osimage}; roll that one back")
    return before


def _wanted(tag: str, target: Target, before: str) -> str:
    """The name of the set to serve: the newest of a tag, without one that of before. before: the one that is served."""
    image, rootimgdir = target.image, target.rootimgdir
    if not tag:
        wanted = sets.previous(rootimgdir)
        if not wanted:
            served = sets.read_record(rootimgdir)
            kept = {record.tag for record in sets.kept(rootimgdir, image.name).values()}
            kept -= {served.tag} if served else set()
            hint = f"choose one with -t: {', '.join(sorted(kept))}" if kept else "no other is kept; pack another tag"
            raise NotFoundError(f"{image.name}: no set was served before {before}; {hint}")
        return wanted
    found = sets.kept(rootimgdir, image.name)
    newest = {found[name].tag: name for name in sorted(found, key=lambda name: found[name].date)}
    if tag not in newest:
        hint = nearest(tag, newest) or f"; there is {', '.join(sorted(newest)) or 'none'}"
        raise NotFoundError(f"{image.name}: no packed set of tag {tag!r} is kept{hint}; or pack it again")
    return newest[tag]


def _refuse_damaged(target: Target, wanted: str, fast: bool) -> None:
    """Refuse to serve what is not what was packed, or of another osimage, or no image at all."""
    image, rootimgdir = target.image, target.rootimgdir
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
    text = sets.altered(rootimgdir, wanted, sums=not fast)
    if record is not None and text:
        raise AvsError(
            f"{image.name}: {text}; nothing was changed. Pack it again with `avsimage -c pack {image.name} -t {record.tag}`, or choose another "
            f"with -t; if somebody has packed there by hand and nodes shall have just that, remove {directory / sets.RECORD} first"
        )


MODE = Mode(
    "rollback", run,
    {"tag": "another tag whose set is still kept", "message": "why, for the journal"},
)  # fmt: skip
