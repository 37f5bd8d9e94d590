"""files: the paths of a version, from its manifest."""

from __future__ import annotations

from typing import Any

from xcat_avs.diff.words import entry_document
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, columns
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.looking import Sight
from xcat_avs.tree.inside import missing, shown, stored
from xcat_avs.tree.manifest import Entry
from xcat_avs.tree.patterns import matches

SPECIAL = "*?["  # what makes a pattern more than a path


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    sight = Sight.of(request.tag, request.revision, site.store(), image)
    found, pattern = sight.listed(), request.argument
    taken = [entry for path, entry in found.items() if not pattern or matches(shown(path), pattern)]
    document: dict[str, Any] = {
        "osimage": image.name, "tag": sight.version.tag, "revision": sight.number,
        "files": [{"path": shown(entry.path), **(entry_document(entry) or {})} for entry in taken] if request.json else [],
    }  # fmt: skip
    if taken:
        return Report([columns(("TYPE", "MODE", "OWNER", "SIZE", "PATH"), list(map(_row, taken)), ALIGN)], document)
    hint = "" if set(SPECIAL) & set(pattern) else missing(found, stored(pattern))
    return Report([f"No path of {sight.name} matches {pattern!r}{hint}"], document)


ALIGN = [LEFT, RIGHT, RIGHT, RIGHT, LEFT]


def _row(entry: Entry) -> tuple[str, ...]:
    size = ",".join(map(str, entry.device)) if entry.type in ("char", "block") else str(entry.size)
    path = shown(entry.path)
    if entry.type == "link":
        path += f" -> {entry.link}"
    elif entry.hardlink:
        path += f" = {shown(entry.hardlink)}"
    return entry.type, f"{entry.mode:04o}", f"{entry.uid}:{entry.gid}", size, path


MODE = Mode(
    "files", run,
    {"tag": "the tag to look into", "revision": "the revision to look into (default: the newest)"},
    argument="[PATTERN]",
)  # fmt: skip
