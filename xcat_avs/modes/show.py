"""show: one tag or revision: who, when, why, from what, and its stored report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xcat_avs import __version__
from xcat_avs.clock import local, utc_now
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import NotFoundError, UsageError
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, Report, Table, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.serve import booted, nodes, sets
from xcat_avs.serve.booted import Boot
from xcat_avs.serve.sets import packed_as
from xcat_avs.site import Site
from xcat_avs.store import signatures
from xcat_avs.store.protocol import Revision, Store, Version
from xcat_avs.store.signatures import Signed
from xcat_avs.store.tags import described, find_revision, find_tag, parted
from xcat_avs.store.trees import INPUTS, stored_manifest
from xcat_avs.system import records


@dataclass(frozen=True)
class Seen:
    """A version, and what it says of itself."""

    store: Store
    image: OsImage
    version: Version
    revision: Revision
    facts: list[tuple[str, str]]
    document: dict[str, Any]


def run(request: Request, site: Site) -> Report:
    if request.tag and request.revision:
        raise UsageError("give -t TAG or -r REV, not both")
    if request.html:
        from xcat_avs.page import charts, place

        charts.need()  # known before the work
        place.refuse(Path(os.path.abspath(request.html)))
    seen = _seen(request, site)
    document = seen.document
    blocks: list[object] = [Table(("", ""), seen.facts, [LEFT, LEFT], bare=True)]
    if document["inputs"]:
        blocks.append(as_lines(["Built from (build_info/inputs):", *("  " + path for path in document["inputs"])]))
    try:
        text = seen.store.read(seen.image, seen.version, "build_info/report").decode("utf-8", "replace")
        document["report"] = text
        blocks.append(text.rstrip("\n"))
    except NotFoundError:
        blocks.append("(no report stored)")
    return _page(request, site, seen) if request.html else Report(blocks, document)


def _seen(request: Request, site: Site) -> Seen:
    image = site.image(request)
    store = site.store()
    facts: list[tuple[str, str]] = [("Osimage:", image.name)]
    document: dict[str, Any] = {"osimage": image.name}
    if request.tag:
        tag = find_tag(request.tag, store, image)
        version, revision = Version(tag=tag.name), store.revision(image, tag.source)
        signed = site.signing(request).check(
            image, tag, signatures.digest(store, image, version) if tag.signature else ""
        )
        boots = booted.of_tag(booted.read(site.settings.state, image.name), tag)
        document.update(_tag_document(tag, image, site, signed))
        document["tag"]["boots"] = [boot.document() for boot in boots]
        facts += [*_tag_facts(tag, document), *_boot_facts(boots)]
        facts += [("Signature:", signed.words(local(signed.date)))] if tag.signature else []
    else:
        revision = find_revision(request.revision, store, image)
        version = Version(revision=revision.number)
    document["revision"] = described(revision)
    facts += _revision_facts(revision)
    provenance = _json(store, image, version, "build_info/provenance.json")
    if provenance:
        document["provenance"] = provenance
        facts += _build_facts(provenance)
    document["inputs"] = _inputs(store, image, version)
    return Seen(store, image, version, revision, facts=facts, document=document)


def _page(request: Request, site: Site, seen: Seen) -> Report:
    """Write it as a page, with what else there is to see."""
    from xcat_avs.page import page, place
    from xcat_avs.store.survey import survey

    path, image = Path(os.path.abspath(request.html)), seen.image
    site.progress.begin(f"reading {seen.version}")
    try:
        found = survey(seen.store, image, seen.version, seen.revision.number)
    finally:
        site.progress.end()
    names = [seen.version.tag] if seen.version.tag else next(
        (item["tags"] for item in found["revisions"] if item["number"] == seen.revision.number), []
    )  # fmt: skip
    made = f"{seen.version}, as avsimage {__version__} saw it {local(utc_now())}"
    data = {**seen.document, "survey": found, "nodes": _nodes(site, image, names)}
    written = place.write(path, page.make(image.name, made, seen.facts, data))
    line = f"Wrote {path} ({short_size(written)}): a page on {image.name} {seen.version}"
    return Report([as_lines([line])], {**seen.document, "html": str(path)})


def _nodes(site: Site, image: OsImage, tags: Sequence[str]) -> list[dict[str, Any]]:
    """The osimages that serve one of these tags now, and their nodes."""
    table, found = site.definitions.nodes(), []
    for target in site.targets():
        record = sets.read_record(target.rootimgdir)
        if record and (record.source, record.osimage) == (image.name, target.image.name) and record.tag in tags:
            state = nodes.look(target.image, site.definitions.installdir, site.definitions.tftpdir, table)
            found.append({"osimage": target.image.name, "tag": record.tag, **state.document()})
    return found


def _tag_document(tag: Tag, image: OsImage, site: Site, signed: Signed) -> dict[str, Any]:
    """The tag, where it is served, and where, from when and until when it was."""
    served = packed_as(image, site.targets()).get(tag.name, [])
    history, entries = list[dict[str, Any]](), site.journals()
    for number, entry in enumerate(entries):
        if (entry.source, entry.tag) == (image.name, tag.name):
            later = (other.date for other in entries[number + 1 :] if other.osimage == entry.osimage)
            history.append({**asdict(entry), "until": next(later, "")})
    return {"tag": {**described(tag), "signature": asdict(signed), "packed": served}, "history": history}


def _tag_facts(tag: Tag, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    real = f" ({tag.real})" if tag.real else ""
    yield "Tag:", f"{tag.name}, made {local(tag.date)} by {tag.author}{real}"
    yield "Served now as:", ", ".join(document["tag"]["packed"]) or "-"
    for entry in document["history"]:
        because = f": {entry['message']}" if entry["message"] else ""
        since, until = local(entry["date"]), local(entry["until"])
        period = f"from {since} to {until}" if until else f"since {since}"
        yield "Served:", f"as {entry['osimage']} {period} ({entry['action']} by {entry['user']}){because}"
    why = parted(tag.message)[1]
    if why:
        yield "Tagged because:", why


def _boot_facts(boots: Sequence[Boot]) -> Iterator[tuple[str, str]]:
    for boot in boots:
        yield "Boot:", f"{boot.words(local(boot.date))}, by {boot.user}; a node needs {boot.needed} MiB"


def _revision_facts(revision: Revision) -> Iterator[tuple[str, str]]:
    was = f", which was {revision.original} in the store that it was made in" if revision.original else ""
    yield "Revision:", f"{revision.number}{was}"
    yield "Date:", local(revision.date)
    yield "Author:", revision.author
    yield "Message:", parted(revision.message)[1] or revision.message


def _build_facts(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    said = {key: str(provenance.get(key, "?")) for key in ("uid", "host", "generator", "avsimage", "definition")}
    sudo = f", through sudo from {provenance['sudo_user']}" if provenance.get("sudo_user") else ""
    yield (
        "Built by:",
        f"uid {said['uid']} on {said['host']}{sudo}, with {said['generator']}, avsimage {said['avsimage']}",
    )
    yield "Definition:", said["definition"]


def _json(store: Store, image: OsImage, version: Version, path: str) -> dict[str, Any]:
    try:
        return records.document(store.read(image, version, path)) or {}
    except NotFoundError:
        return {}  # made by avs_image_mgr


def _inputs(store: Store, image: OsImage, version: Version) -> list[str]:
    manifest = stored_manifest(store, image, version) or {}
    return [
        path[len(INPUTS) + 1 :]
        for path, entry in manifest.items()
        if path.startswith(INPUTS + "/") and entry.type == "file"
    ]


MODE = Mode(
    "show", run,
    {"tag": "the tag to show", "revision": "the revision to show (default: the newest)"},
)  # fmt: skip
