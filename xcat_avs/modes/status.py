"""status: what every managed osimage serves, and what its nodes will boot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, UsageError
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.serve import booted, live, nodes, sets
from xcat_avs.serve.booted import Boot
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.nodes import Served
from xcat_avs.site import Site

HEADERS = (
    "OSIMAGE",
    "TAG",
    "PACKED",
    "BY",
    "BOOTED",
    "PREVIOUS",
    "COHERENT",
    "NODES",
    "NODERANGE",
    "NODESET",
    "NEWEST TAG",
)


def run(request: Request, site: Site) -> Report:
    if request.live and not site.definitions.xcat:
        raise UsageError("--live asks the nodes by xdsh, and xCAT, which has it and knows the nodes, is not used here")
    images = [site.image(request)] if request.image or request.profile else _managed(request, site)
    working = _running([*images] if request.image or request.profile else site.definitions.osimages().values(), site)
    busy = [as_lines(_working(item) for item in working)] if working else []
    if not images:
        return Report(["(no osimage has been packed yet)", *busy], {"osimages": [], "running": working})
    table = site.definitions.nodes()
    installdir, tftpdir = site.definitions.installdir, site.definitions.tftpdir
    states = [nodes.look(image, installdir, tftpdir, table) for image in images]
    newest = _newest(states, site)
    documents, notes = list[dict[str, Any]](), list[str]()
    for state in states:
        document = _document(state, site, newest[state.image.name])
        if request.live:
            document["live"] = live.ask(state, site.runner()) if state.nodes else {}
        documents.append(document)
        notes += _notes(state, document)
    align = [*[LEFT] * 7, RIGHT, LEFT, LEFT, LEFT]
    rows = [_row(state, document, site.definitions.xcat) for state, document in zip(states, documents)]
    overview = Table(HEADERS, rows, align, sparse=True)
    return Report([overview, *([as_lines(notes)] if notes else []), *busy], {"osimages": documents, "running": working})


def _running(images: Iterable[OsImage], site: Site) -> list[dict[str, Any]]:
    """The builds and packs that are going on, as far as who asks may see them."""
    return [
        {"osimage": image.name, "activity": activity, **asdict(holder)}
        for image in sorted(images, key=lambda image: image.name)
        for activity, holder in site.running(image).items()
    ]


def _working(item: Mapping[str, Any]) -> str:
    """The same in words."""
    past = {"build": "built", "pack": "packed"}[item["activity"]]
    who = f"{item['osimage']} is being {past} by {item['user']} (process {item['pid']} on {item['host']}) since {local(item['since'])}"
    return f"{who}: {item['doing']}, since {local(item['doing_since'])}" if item["doing"] else who


def _managed(request: Request, site: Site) -> list[OsImage]:
    """The osimages that were published here, and those whose nodes boot what was published of another."""
    found = []
    for image in site.definitions.osimages().values():
        record = sets.read_record(site.target(image).rootimgdir) if image.profile else None
        shares = record is not None and nodes.boots(image)
        published = shares or record.osimage == image.name if record else bool(site.journal(image))
        if published and request.osvers in ("", image.osvers) and request.osarch in ("", image.osarch):
            found.append(image)
    return sorted(found, key=lambda image: image.name)


def _newest(states: Sequence[Served], site: Site) -> dict[str, str]:
    """The newest tag that each osimage could serve, "" for none: one question for all of them."""
    images = site.definitions.osimages()
    # An osimage that serves another's tag waits for that other's tags.
    sources = {
        state.image.name: images.get(state.record.source, state.image) if state.record else state.image
        for state in states
    }
    store = site.store(recognize=False)
    try:  # what is served is told also where the store is gone, or does not answer
        tags = store.newest_tags([*{source.name: source for source in sources.values()}.values()])
    except AvsError as err:
        site.progress.warn(err.text)
        return dict.fromkeys(sources, "")
    return {name: tags[source.name] for name, source in sources.items()}


def _row(state: Served, document: Mapping[str, Any], xcat: bool) -> tuple[str, ...]:
    facts = (document["tag"], local(document["date"]), document["user"], _booted(document), document["previous"])
    due = "due" if state.nodeset_due else ""
    cells = (*facts, state.coherent, str(len(state.nodes)) if xcat else "", state.noderange, due, document["newest"])
    return (state.image.name, *(cell or "-" for cell in cells))


def _booted(document: Mapping[str, Any]) -> str:
    return "; ".join(Boot(**boot).short(local(boot["date"])) for boot in document["boots"])


def _notes(state: Served, document: Mapping[str, Any]) -> Iterator[str]:
    """What is to be said of an osimage below the table."""
    name, last = state.image.name, document["last"]
    if "live" in document:
        yield from live.lines(state, document["live"])
    if last.get("action") == "rollback":
        why = f": {last['message']}" if last["message"] else ""
        yield f"{name} was rolled back {local(last['date'])} by {last['user']}{why}"
    if document["altered"]:
        yield f"{name}: {document['altered']}; pack it again"
    if state.nodeset_due:
        yield f"Due: {' '.join(state.nodeset)}"
    yield from nodes.service_lines(state)


def _document(state: Served, site: Site, newest: str) -> dict[str, Any]:
    record, image = state.record, state.image
    rootimgdir = site.target(image).rootimgdir
    history = site.journal(image)
    return {
        "osimage": image.name, "rootimgdir": str(rootimgdir), "tag": record.tag if record else "", "date": record.date if record else "",
        "user": record.user if record else "", "source": record.source if record else "", "revision": record.revision if record else 0,
        "previous": sets.previous(rootimgdir), "coherent": {"yes": True, "no": False}.get(state.coherent),
        "newest": "" if record and newest == record.tag else newest, **state.document(),
        "altered": _altered(state, rootimgdir, history),
        "boots": [boot.document() for boot in booted.of_set(booted.read(site.settings.state, record.source), record)] if record else [],
        "last": {"action": history[-1].action, "date": history[-1].date, "user": history[-1].user, "message": history[-1].message} if history else {},
    }  # fmt: skip


def _altered(state: Served, rootimgdir: Path, history: Sequence[JournalEntry]) -> str:
    """How what is served is not what was packed, or ""."""
    name = sets.current(rootimgdir)
    if state.record is None and history and history[-1].tag:  # else a directory of before is served again
        what = (
            f"{name or rootimgdir} has no record of a pack" if rootimgdir.is_dir() else f"{name or rootimgdir} is gone"
        )
        return f"{what}, and differs from what was packed from tag {history[-1].tag}"
    return sets.altered(rootimgdir)


MODE = Mode("status", run, image=False)
