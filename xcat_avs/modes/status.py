"""status: what every managed osimage serves, and what its nodes will boot."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcat_avs import command, served, xcat
from xcat_avs.errors import CommandError, NoStoreError
from xcat_avs.image import OsImage, Tag
from xcat_avs.modes import Mode
from xcat_avs.pack import publish
from xcat_avs.report import LEFT, RIGHT, Report, Table, local
from xcat_avs.request import Request
from xcat_avs.served import Served
from xcat_avs.site import Site

LIVE_TIMEOUT = 60.0  # seconds for all nodes
# What a node says: its tag, or that it has no such file.
ANSWER = re.compile(r"^(\S+): (?:AVS_TAG='([^']*)'|.*avs-release.*)$", re.MULTILINE)
OTHER = "something else"


def run(request: Request, site: Site) -> Report:
    images = [site.image(request)] if request.image or request.profile else _managed(request, site)
    if not images:
        return Report(["(no osimage has been packed yet)"], {"osimages": []})
    table = site.definitions.nodes()
    rows, documents, notes = [], [], []
    for image in images:
        state = served.look(image, site.definitions.installdir, site.definitions.tftpdir, table)
        document = _document(state, image, site)
        live = _live(state) if request.live and state.nodes else {}
        if request.live:
            document["live"] = live
            notes += _live_lines(state, live)
        last = document["last"]
        if last.get("action") == "rollback":
            why = f": {last['message']}" if last["message"] else ""
            notes.append(f"{image.name} was rolled back {local(last['date'])} by {last['user']}{why}")
        if state.nodeset_due:
            notes.append(f"Due: {' '.join(state.nodeset)}")
        rows.append((
            image.name, document["tag"] or "-", local(document["date"]) or "-", document["user"] or "-", document["previous"] or "-",
            state.coherent, str(len(state.nodes)), state.noderange or "-", "due" if state.nodeset_due else "-", document["newest"] or "-",
        ))  # fmt: skip
        documents.append(document)
    headers = (
        "OSIMAGE",
        "TAG",
        "PACKED",
        "BY",
        "PREVIOUS",
        "COHERENT",
        "NODES",
        "NODERANGE",
        "NODESET",
        "NOT PACKED YET",
    )
    align = [LEFT, LEFT, LEFT, LEFT, LEFT, LEFT, RIGHT, LEFT, LEFT, LEFT]
    return Report([Table(headers, rows, align), *(["\n".join(notes)] if notes else [])], {"osimages": documents})


def _managed(request: Request, site: Site) -> list[OsImage]:
    """The osimages that were published here."""
    found = []
    for image in site.definitions.osimages().values():
        record = publish.read_record(image.rootimgdir(site.definitions.installdir)) if image.profile else None
        published = record.osimage == image.name if record else bool(site.journal(image))
        if published and request.osvers in ("", image.osvers) and request.osarch in ("", image.osarch):
            found.append(image)
    return sorted(found, key=lambda image: image.name)


def _document(state: Served, image: OsImage, site: Site) -> dict[str, Any]:
    record = state.record
    rootimgdir = image.rootimgdir(site.definitions.installdir)
    # An osimage that serves another's tag waits for that other's tags.
    source = site.definitions.osimages().get(record.source, image) if record else image
    tags = _tags(source, site)
    newest = tags[-1].name if tags and (record is None or tags[-1].name != record.tag) else ""
    history = site.journal(image)
    return {
        "osimage": image.name, "rootimgdir": str(rootimgdir), "tag": record.tag if record else "", "date": record.date if record else "",
        "user": record.user if record else "", "source": record.source if record else "", "revision": record.revision if record else 0,
        "previous": publish.previous(rootimgdir), "coherent": {"yes": True, "no": False}.get(state.coherent),
        "differing": list(state.differing), "nodes": list(state.nodes), "noderange": state.noderange, "nodeset_due": state.nodeset_due,
        "nodeset": list(state.nodeset) if state.nodeset_due else [], "newest": newest,
        "last": {"action": history[-1].action, "date": history[-1].date, "user": history[-1].user, "message": history[-1].message} if history else {},
    }  # fmt: skip


def _tags(image: OsImage, site: Site) -> list[Tag]:
    """The tags of an image; what is served is told also where the store is gone."""
    try:
        return site.store(recognize=False).tags(image)
    except NoStoreError as err:
        site.progress.warn(f"{image.name}: {err.text}")
        return []


def _live(state: Served) -> Mapping[str, list[str]]:
    """Tag -> nodes that run it, as they say themselves; "" -> those that did not answer."""
    with tempfile.NamedTemporaryFile() as answers:
        argv = [xcat.need("xdsh"), state.noderange, "-t", "10", "cat", "/etc/avs-release"]
        try:
            command.run(argv, log=Path(answers.name), timeout=LIVE_TIMEOUT, check=False)
        except CommandError:
            pass  # those that answered in time have answered
        text = Path(answers.name).read_text(encoding="utf-8", errors="replace")
    found: dict[str, list[str]] = {}
    silent = set(state.nodes)
    for node, tag in ANSWER.findall(text):
        if node in silent:
            silent.discard(node)
            found.setdefault(tag or OTHER, []).append(node)
    if silent:
        found[""] = sorted(silent)
    return found


def _live_lines(state: Served, live: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for tag, nodes in sorted(live.items()):
        what = f"run {tag}" if tag else "did not answer"
        lines.append(f"{state.image.name}: {len(nodes)} of {len(state.nodes)} nodes {what}: {xcat.collapse(nodes)}")
    return lines


MODE = Mode(
    "status",
    "show what every osimage serves, and whether nodeset is due",
    run,
    {"live": "ask the nodes, by xdsh, what they run"},
    image=False,
)
