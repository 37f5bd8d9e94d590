"""list-tags: the tags of an image, and where each is served."""

from __future__ import annotations

from xcat_avs.clock import local
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table
from xcat_avs.request import Request
from xcat_avs.serve.sets import packed_as
from xcat_avs.site import Site
from xcat_avs.store import signatures


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    tags = site.store().tags(image)
    packed, signing = packed_as(image, site.targets()), site.signing(request)
    rows, documents, signers = [], [], []
    for tag in tags:
        served = packed.get(tag.name, [])
        lines = tag.message.split("\n")
        # The first line only says again who tagged what.
        message = " ".join(lines[1:] if "; " in lines[0] else lines).strip()
        signed = signing.check(image, tag, manifest="")
        signers.append(signed.short())
        rows.append([tag.name, str(tag.source), local(tag.date), tag.author, ", ".join(served) or "-", message])
        documents.append({**signatures.document(tag, signed), "packed": served})
    headers = ["TAG", "REVISION", "DATE", "AUTHOR", "PACKED AS", "MESSAGE"]
    if any(tag.signature for tag in tags):
        for row, signer in zip([headers, *rows], ["SIGNED BY", *signers]):
            row.insert(-1, signer)
    block: object = Table(headers, rows, [LEFT, RIGHT, *[LEFT] * 5][: len(headers)]) if rows else "(no tags found)"
    return Report([block], {"osimage": image.name, "tags": documents})


MODE = Mode("list-tags", "list the tags: date, author, revision, what is served where", run, alias="list_tags")
