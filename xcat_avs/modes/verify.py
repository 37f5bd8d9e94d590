"""verify: whether a tag, and what is published of it, is what its manifest says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Optional

from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.image import OsImage
from xcat_avs.manifest import Manifest
from xcat_avs.modes import Mode
from xcat_avs.modes.tag import find_revision, find_tag
from xcat_avs.pack import publish
from xcat_avs.pack.publish import PackedSet
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store import Store, Version
from xcat_avs.store.trees import checkout_tree, stored_manifest

OK, WARN, FAIL = "[ OK ]", "[WARN]", "[FAIL]"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. result: `[ OK ]`, `[WARN]` or `[FAIL]`. details: what is wrong, a line each."""

    result: str
    text: str
    details: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [f"{self.result} {self.text}", *(f"       {line}" for line in self.details)]


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    store = site.store()
    version = _version(request, site, store, image)
    findings = [_tree(version, site, store, image), *_published(site, store, image)]
    if request.deep:
        findings.append(_store(site, store))
    failed = any(finding.result == FAIL for finding in findings)
    document = {"osimage": image.name, "version": str(version), "tag": version.tag, "revision": version.revision,
                "whole": not failed, "findings": [asdict(finding) for finding in findings]}  # fmt: skip
    return Report([as_lines(line for finding in findings for line in finding.lines())], document, 1 if failed else 0)


def _version(request: Request, site: Site, store: Store, image: OsImage) -> Version:
    """The tag asked for; else the one that is served, the newest one, the newest revision."""
    if request.tag:
        return Version(tag=find_tag(request.tag, store, image).name)
    tags = [tag.name for tag in store.tags(image)]
    record = publish.read_record(image.rootimgdir(site.definitions.installdir))
    if record is not None and record.source == image.name and record.tag in tags:
        return Version(tag=record.tag)
    return Version(tag=tags[-1]) if tags else Version(revision=find_revision("", store, image).number)


def _tree(version: Version, site: Site, store: Store, image: OsImage) -> Finding:
    """Check the version out and compare it."""
    what = f"{image.name} {version}"
    warnings: list[str] = []
    site.progress.begin(f"checking out {version}")
    try:
        with site.checkout(image, site.settings.state / "staging" / f"{image.name}.verify") as checkout:
            found = checkout_tree(store, image, version, checkout, warnings.append)
            known = stored_manifest(store, image, version) is not None
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


def _published(site: Site, store: Store, image: OsImage) -> Iterator[Finding]:
    """Every osimage that serves a tag of the image."""
    for other in site.definitions.osimages().values():
        directory = other.rootimgdir(site.definitions.installdir)
        record = publish.read_record(directory)
        if record is None or record.source != image.name or record.osimage != other.name:
            continue
        site.progress.begin(f"reading {directory}")
        wrong = list(_wrong(record, publish.describe_files(directory), _manifest(store, image, record.tag)))
        site.progress.end()
        what = f"{other.name} serves tag {record.tag} in {directory}"
        if wrong:
            yield Finding(
                FAIL,
                f"{what}: {len(wrong)} of its files are not as they were packed; pack it again with --force",
                tuple(wrong),
            )
        else:
            yield Finding(OK, f"{what}: {len(record.files)} files are as they were packed")


def _manifest(store: Store, image: OsImage, tag: str) -> Optional[Manifest]:
    try:
        return stored_manifest(store, image, Version(tag=tag))
    except AvsError:
        return None  # said of the tag itself


def _wrong(record: PackedSet, present: dict[str, dict[str, object]], manifest: Optional[Manifest]) -> Iterator[str]:
    for name, facts in record.files.items():
        if name not in present:
            yield f"{name}: is gone"
        elif present[name] != facts:
            yield f"{name}: changed since"
        elif manifest and name in manifest and manifest[name].sha256 != facts["sha256"]:
            yield f"{name}: is not the one of the tag"
    for name in sorted(present.keys() - record.files.keys() - {publish.RECORD}):
        yield f"{name}: was not packed, and is served all the same"


def _store(site: Site, store: Store) -> Finding:
    site.progress.begin("verifying the store")
    try:
        return Finding(OK, f"{store.check()}: the whole store can be read")
    except NotFoundError as err:
        return Finding(WARN, err.text)
    except AvsError as err:
        return Finding(FAIL, f"the store is damaged: {err.text}", err.tail)
    finally:
        site.progress.end()


MODE = Mode(
    "verify", "compare a tag, and what is published of it, with its manifest", run,
    {"tag": "the tag (default: the one that is served, or the newest)", "deep": "verify the whole store as well"},
    private=True,
)  # fmt: skip
