"""log: the history of trunk: who built what when and why, how large it is, which tags it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, short_size
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.protocol import Revision, Store
from xcat_avs.store.tags import described


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    documents = _history(site.store(), image)
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


def _history(store: Store, image: OsImage) -> list[dict[str, Any]]:
    """Each revision, the newest first, with its tags and what its provenance counts."""
    revisions = store.log(image)
    if not revisions:
        return []
    built, tags = store.provenance(image), tags_by_revision(store.tags(image), revisions)
    return [
        {
            **described(revision),
            "packages": _number(built.get(revision.number, {}).get("packages")),
            "bytes": _number(built.get(revision.number, {}).get("bytes")),
            "tags": tags.get(revision.number, []),
        }
        for revision in revisions
    ]


def tags_by_revision(tags: Sequence[Tag], revisions: Sequence[Revision]) -> dict[int, list[str]]:
    """Revision -> names of the tags that hold it. A tag may name a later number, at which trunk was still the same."""
    found: dict[int, list[str]] = {}
    for tag in tags:
        held = [revision.number for revision in revisions if revision.number <= tag.source]
        if held:
            found.setdefault(max(held), []).append(tag.name)
    return found


def _number(value: object) -> Optional[int]:
    return value if isinstance(value, int) else None


def _or_dash(value: Optional[int]) -> str:
    return "-" if value is None else str(value)


MODE = Mode("log", run)
