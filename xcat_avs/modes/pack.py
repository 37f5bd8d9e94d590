"""pack: check a tag out, prove it, archive it, serve it."""

from __future__ import annotations

from xcat_avs.modes import Mode
from xcat_avs.pack.job import prepare
from xcat_avs.pack.packing import Tagged
from xcat_avs.pack.serving import serve
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.tags import find_tag


def run(request: Request, site: Site) -> Report:
    image = site.own_image(request)
    job = prepare(request, site, site.resolve(request.masquerade, request) if request.masquerade else image)
    store = site.store()
    return serve(request, site, job, Tagged(store, image, find_tag(request.tag, store, image)))


MODE = Mode(
    "pack", run,
    {"tag": "the tag to pack", "user": "who packs it (default: who is logged in)"}, needs=("tag",), private=True,
)  # fmt: skip
