"""tag: give a revision an immutable name."""

from __future__ import annotations

import shlex
from dataclasses import asdict

from xcat_avs.definitions.osimage import check_tag_name
from xcat_avs.modes import Mode
from xcat_avs.pack.signed import make_signed, said_of
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.tags import default_name, described, find_revision, new_tag


def run(request: Request, site: Site) -> Report:
    image = site.own_image(request)
    name = check_tag_name(request.tag or default_name(image, site.identity))
    store = site.store()
    revision = find_revision(request.revision, store, image)
    tag, signed = make_signed(request, site, store, image, new_tag(name, revision, site.identity, request.message))
    lines = [f"Tagged revision {tag.source} of {image.name} as {tag.name}", *said_of(signed)]
    lines.append(f"Next: avsimage -c pack {request.image or image.name} -t {shlex.quote(tag.name)}")
    return Report([as_lines(lines)], {"osimage": image.name, **described(tag), "signature": asdict(signed)})


MODE = Mode(
    "tag", run,
    {
        "tag": "its name (default: YYYY-MM-DD-HH-MM-SS-OSVERS-by-USER)", "revision": "the revision to tag (default: the newest)",
        "user": "who tags it (default: who is logged in)",
    },
)  # fmt: skip
