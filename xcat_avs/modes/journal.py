"""journal: who had what served, from when to when, and why."""

from __future__ import annotations

from dataclasses import asdict

from xcat_avs.clock import local
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table
from xcat_avs.request import Request
from xcat_avs.serve.journal import JournalEntry, periods
from xcat_avs.site import Site


def run(request: Request, site: Site) -> Report:
    if request.image or request.profile:
        entries = site.journal(site.image(request))
    else:
        entries = site.journals()
        if request.osvers or request.osarch:
            names = {image.name for image in site.narrowed(request)}
            entries = [entry for entry in entries if entry.osimage in names]
    found = [*reversed(periods(entries))]
    rows = [
        (local(entry.date), local(until) or "-", entry.osimage, _what(entry), str(entry.revision or "-"), entry.action,
         entry.user, " ".join(entry.message.split()))
        for entry, until in found
    ]  # fmt: skip
    headers = ("SINCE", "UNTIL", "OSIMAGE", "TAG", "REVISION", "ACTION", "USER", "MESSAGE")
    align = [LEFT, LEFT, LEFT, LEFT, RIGHT, LEFT, LEFT, LEFT]
    block: object = Table(headers, rows, align) if rows else "(nothing has been packed yet)"
    return Report([block], {"entries": [{**asdict(entry), "until": until} for entry, until in found]})


def _what(entry: JournalEntry) -> str:
    """What was served: a tag, of which osimage where that is another one, or a directory of before."""
    if not entry.tag:
        return entry.directory
    return entry.tag if entry.source == entry.osimage else f"{entry.tag} of {entry.source}"


MODE = Mode("journal", run, image=False)
