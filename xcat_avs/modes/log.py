"""log: the history of trunk: who built what when and why, how large it is, which tags it has."""

from __future__ import annotations

from typing import Optional

from xcat_avs.clock import local
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, short_size
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.survey import history


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    documents = history(site.store(), image)
    rows = [
        (
            str(item["number"]),
            str(item["original"] or "-"),
            local(item["date"]),
            item["author"],
            _or_dash(item["packages"]),
            "-" if item["bytes"] is None else short_size(item["bytes"]),
            ", ".join(item["tags"]) or "-",
            item["message"],
        )
        for item in documents
    ]
    headers = ("REVISION", "WAS", "DATE", "AUTHOR", "PACKAGES", "SIZE", "TAGS", "MESSAGE")
    align = [RIGHT, RIGHT, LEFT, LEFT, RIGHT, RIGHT, LEFT, LEFT]
    block: object = Table(headers, rows, align, sparse=True) if rows else "(no revisions found)"
    return Report([block], {"osimage": image.name, "revisions": documents})


def _or_dash(value: Optional[int]) -> str:
    return "-" if value is None else str(value)


MODE = Mode("log", run)
