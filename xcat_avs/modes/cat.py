"""cat: one file of a version, byte by byte."""

from __future__ import annotations

import base64
import hashlib
from typing import Optional

from xcat_avs.modes import Mode
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.looking import Sight
from xcat_avs.tree.inside import shown, stored


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    sight = Sight.of(request.tag, request.revision, site.store(), image)
    path, data = sight.content(stored(request.argument))
    if sight.manifest is None:
        site.progress.warn(
            f"{sight.name} has no manifest, so nothing but Subversion's own sums says that {shown(path)!a} is whole; "
            "of a link or a device this is what FSVS keeps of it"
        )
    text = _text(data) if request.json else None
    binary = base64.b64encode(data).decode() if request.json and text is None else None
    document = {
        "osimage": image.name, "tag": sight.version.tag, "revision": sight.number, "path": shown(path), "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(), "content": text, "base64": binary,
    }  # fmt: skip
    return Report(document=document, data=data)


def _text(data: bytes) -> Optional[str]:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


MODE = Mode(
    "cat", run,
    {"tag": "the tag to look into", "revision": "the revision to look into (default: the newest)"},
    argument="PATH",
)  # fmt: skip
