"""pack: check a tag out, prove it, archive it, serve it."""

from __future__ import annotations

from xcat_avs.modes import Mode
from xcat_avs.pack.job import check_tools, publish_tag
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.tags import find_tag


def run(request: Request, site: Site) -> Report:
    image = site.own_image(request)
    target = site.resolve(request.masquerade, request) if request.masquerade else image
    check_tools(request, site, target)
    store = site.store()
    tag = find_tag(request.tag, store, image)
    return Report(*publish_tag(request, site, store, image, tag, target))


MODE = Mode(
    "pack", "check a tag out, verify it, pack it, and serve it in one step", run,
    {"tag": "the tag to pack", "user": "who packs it (default: who is logged in)"}, needs=("tag",), private=True,
)  # fmt: skip
