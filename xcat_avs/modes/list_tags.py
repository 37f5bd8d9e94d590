"""list-tags: the tags of an image, and where each is served."""

from __future__ import annotations

from dataclasses import asdict

from xcat_avs.clock import local
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table
from xcat_avs.request import Request
from xcat_avs.serve import booted
from xcat_avs.serve.sets import packed_as
from xcat_avs.site import Site
from xcat_avs.store.tags import described


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    tags = site.store().tags(image)
    packed, signing = packed_as(image, site.targets()), site.signing(request)
    boots = booted.read(site.settings.state, image.name)
    rows, documents, signers = [], [], []
    for tag in tags:
        served = packed.get(tag.name, [])
        signed = signing.check(image, tag, manifest="")
        signers.append(signed.short() if tag.signature else "")
        tried = booted.of_tag(boots, tag)
        more = {"signature": asdict(signed), "packed": served, "boots": [boot.document() for boot in tried]}
        documents.append({**described(tag), **more})
        message = documents[-1]["message"]
        numbers = (str(tag.source), str(tag.original or "-"))
        up = "; ".join(boot.short(local(boot.date)) for boot in tried) or "-"
        facts = (tag.author, ", ".join(served) or "-", up, signers[-1], message)
        rows.append((tag.name, *numbers, local(tag.date), *facts))
    headers = ("TAG", "REVISION", "WAS", "DATE", "AUTHOR", "SERVED AS", "BOOTED", "SIGNED BY", "MESSAGE")
    block: object = Table(headers, rows, [LEFT, RIGHT, RIGHT, *[LEFT] * 6], sparse=True) if rows else "(no tags found)"
    return Report([block], {"osimage": image.name, "tags": documents})


MODE = Mode("list-tags", run)
