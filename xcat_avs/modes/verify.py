"""verify: whether a tag, and what is published of it, is what its manifest says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Optional

from xcat_avs.clock import local, utc_now
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.modes import Mode
from xcat_avs.pack.packing import Tagged
from xcat_avs.pack.reproducing import reproduce
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.serve import judging, sets
from xcat_avs.serve.sets import PackedSet, Target
from xcat_avs.site import Site
from xcat_avs.store import signatures
from xcat_avs.store.checks import note_verified
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.signatures import GOOD, TAMPERED
from xcat_avs.store.tags import find_revision, find_tag
from xcat_avs.store.trees import checkout_tree, stored_manifest
from xcat_avs.system.findings import FAIL, OK, WARN, Finding
from xcat_avs.tree.manifest import Manifest

MOST = 40  # lines of differences
ATTEMPTS = 5


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    store = site.store()
    version = _version(request, site, store, image)
    findings = [
        _tree(version, site, store, image),
        *_signature(version, request, site, store, image),
        *_published(site, store, image),
    ]
    if request.reproduce:
        findings += _reproduced(version, request, site, store, image)
    if request.deep:
        findings.append(_store(site, store))
    failed = any(finding.result == FAIL for finding in findings)
    document = {"osimage": image.name, "version": str(version), "tag": version.tag, "revision": version.revision,
                "whole": not failed, "findings": [asdict(finding) for finding in findings]}  # fmt: skip
    return Report([as_lines(to_lines(findings))], document, 1 if failed else 0)


def to_lines(findings: Iterable[Finding]) -> list[str]:
    """The findings in words, with MOST lines of differences at most."""
    lines, left = list[str](), MOST
    for finding in findings:
        lines += finding.lines(left)
        left -= min(left, len(finding.details))
    return lines


def _version(request: Request, site: Site, store: Store, image: OsImage) -> Version:
    """The tag asked for; else the one that is served, the newest one, the newest revision."""
    if request.tag:
        return Version(tag=find_tag(request.tag, store, image).name)
    tags = [tag.name for tag in store.tags(image)]
    record = sets.read_record(site.target(image).rootimgdir)
    if record is not None and record.source == image.name and record.tag in tags:
        return Version(tag=record.tag)
    return Version(tag=tags[-1]) if tags else Version(revision=find_revision("", store, image).number)


def _tree(version: Version, site: Site, store: Store, image: OsImage) -> Finding:
    """Check the version out and compare it."""
    what = f"{image.name} {version}"
    warnings: list[str] = []
    site.progress.begin(f"checking out {version}")
    try:
        with site.checkout(image) as checkout:
            found = checkout_tree(store, image, version, checkout, warnings.append)
            known = (checkout / MANIFEST).is_file()
    except AvsError as err:
        return Finding(FAIL, f"{what}: {err.text}", err.tail)
    finally:
        site.progress.end()
    if not known:
        return Finding(
            WARN,
            f"{what} has no manifest, as avs_image_mgr made it: {len(found)} paths, checked by Subversion's own sums only",
        )
    return Finding(
        WARN if warnings else OK, f"{what}: all {len(found)} paths are what its manifest says", tuple(warnings)
    )


def _signature(version: Version, request: Request, site: Site, store: Store, image: OsImage) -> Iterator[Finding]:
    """Who has signed a tag; nothing of one that is not signed, and need not be."""
    tag = find_tag(version.tag, store, image) if version.tag else None
    needed = site.signature_required(image)
    if tag is None or not (tag.signature or needed):
        return
    what = f"{image.name} {version}"
    signed = site.signing(request).check(image, tag, signatures.digest(store, image, version))
    wrong = FAIL if needed or signed.result == TAMPERED else WARN
    yield Finding(OK if signed.result == GOOD else wrong, f"{what} is {signed.words(local(signed.date))}")


def _published(site: Site, store: Store, image: OsImage) -> Iterator[Finding]:
    """Every osimage that serves a tag of the image, by the record of what it serves or by the journal."""
    for other in site.targets():
        finding: Optional[Finding] = None
        for _ in range(ATTEMPTS):  # a pack may come between, and put another set there
            record = sets.read_record(other.rootimgdir)
            with suppress(FileNotFoundError):
                finding = _set(record, other, site, store, image)
            if sets.read_record(other.rootimgdir) == record:
                break
        if finding is not None:
            yield finding


def _set(record: Optional[PackedSet], other: Target, site: Site, store: Store, image: OsImage) -> Optional[Finding]:
    """What is served of an osimage, where that is something of the image."""
    name, directory = other.image.name, other.rootimgdir
    doubt = judging.doubt(record, other, site.journal(other.image), image)
    if doubt:
        return Finding(FAIL, f"{name}: {doubt}; pack it again with --force")
    if record is None or (record.source, record.osimage) != (image.name, name):
        return None
    site.progress.begin(f"reading {directory}")
    wrong = tuple(judging.deviations(record, directory, _manifest(store, image, record.tag)))
    site.progress.end()
    what = f"{name} serves tag {record.tag} in {directory}"
    if wrong:
        text = f"{len(wrong)} of its files are not as they were packed; pack it again with --force"
        return Finding(FAIL, f"{what}: {text}", wrong)
    return Finding(OK, f"{what}: {len(record.files)} files are as they were packed")


def _reproduced(version: Version, request: Request, site: Site, store: Store, image: OsImage) -> Iterable[Finding]:
    if not version.tag:
        return [Finding(WARN, f"{image.name} has no tag, so nothing is packed of it that could be packed again")]
    return reproduce(request, site, Tagged(store, image, find_tag(version.tag, store, image)))


def _manifest(store: Store, image: OsImage, tag: str) -> Optional[Manifest]:
    try:
        return stored_manifest(store, image, Version(tag=tag))
    except AvsError:
        return None  # said of the tag itself


def _store(site: Site, store: Store) -> Finding:
    site.progress.begin("verifying the store")
    try:
        said = store.check()
        note_verified(site.settings.state, store, utc_now())
        return Finding(OK, f"{said}: the whole store can be read")
    except NotFoundError as err:
        return Finding(WARN, err.text)
    except AvsError as err:
        return Finding(FAIL, err.text, err.tail)
    finally:
        site.progress.end()


MODE = Mode(
    "verify", run,
    {"tag": "the tag (default: the one that is served, or the newest)"}, private=True,
)  # fmt: skip
