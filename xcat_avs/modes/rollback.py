"""rollback: serve a set that is still there again, at once."""

from __future__ import annotations

from dataclasses import asdict

from xcat_avs.errors import NotFoundError, nearest
from xcat_avs.modes import Mode
from xcat_avs.modes.pack import after_publish, check_nodeset, record_publish
from xcat_avs.pack import publish
from xcat_avs.report import Report, as_lines, local
from xcat_avs.request import Request
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    rootimgdir = image.rootimgdir(site.definitions.installdir)
    check_nodeset(request, site)
    with site.lock(image, "pack"), site.image_lock(rootimgdir):
        publish.finish_interrupted(rootimgdir)
        before = publish.current(rootimgdir)
        if before is None:
            raise NotFoundError(f"{image.name}: {rootimgdir} was not published by avsimage; pack a tag first")
        sets = publish.kept(rootimgdir, image.name)
        kept = {
            sets[name].tag: name for name in sorted(sets, key=lambda name: sets[name].date)
        }  # the newest of each tag
        if request.tag:
            if request.tag not in kept:
                hint = nearest(request.tag, kept) or f"; there is {', '.join(sorted(kept)) or 'none'}"
                raise NotFoundError(
                    f"{image.name}: no packed set of tag {request.tag!r} is kept{hint}; or pack it again"
                )
            wanted = kept[request.tag]
        else:
            wanted = publish.previous(rootimgdir)
            if not wanted:
                raise NotFoundError(f"{image.name}: no set was served before {before}; choose one with -t")
        if wanted == before:
            return Report(
                [f"{image.name} serves {wanted} already; nothing was changed"],
                {"osimage": image.name, "directory": wanted, "changed": False},
            )
        publish.switch(rootimgdir, wanted)
        record = publish.read_record(rootimgdir)  # None: a directory that genimage and packimage left
        record_publish(site, image, "rollback", record, wanted, before, request.message)
    packed = f", packed {local(record.date)} by {record.user}," if record else ""
    lines = [f"Serving {wanted} again{packed} in place of {before}"]
    more, document, code = after_publish(request, site, image)
    facts = {"osimage": image.name, "directory": wanted, "before": before, "packed": asdict(record) if record else {}}
    return Report([as_lines([*lines, *more])], {**facts, **document, "changed": True}, code)


MODE = Mode(
    "rollback", "serve the set that was served before again, in seconds", run,
    {
        "tag": "another tag whose set is still kept", "message": "why, for the journal", "user": "who does it (default: who is logged in)",
        "nodeset": "run the nodeset that is due",
    },
)  # fmt: skip
