"""diff: what changed between two tags or revisions, without a checkout."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.diff import differences, texts, words
from xcat_avs.diff.differences import Differences
from xcat_avs.diff.words import Side
from xcat_avs.errors import NotFoundError, UsageError
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Raw, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store import contents
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.tags import find_revision, find_tags
from xcat_avs.tree import inside, packages
from xcat_avs.tree.manifest import Manifest


def run(request: Request, site: Site) -> Report:
    of_files = bool(request.files or request.match)
    if request.content and (request.packages or of_files):
        raise UsageError("--content shows one file; give it without --packages and --files")
    image = site.image(request)
    store = site.store()
    old, new = _sides(request, store, image)
    document: dict[str, Any] = {"osimage": image.name, "old": asdict(old), "new": asdict(new)}
    if request.content:
        return _content(store, image, old, new, request.content, document)
    wants_packages, wants_files = request.packages or not of_files, of_files or not request.packages
    # What a commit by other means left unchanged in build_info is not of that commit.
    whole = {side: store.brought(image, side.revision, MANIFEST) for side in (old, new)}
    found = Differences()
    blocks: list[object] = [words.heading(old, new)]
    if wants_files:
        found = _compared(store, image, _version(old), _version(new), all(whole.values()))
        document["manifests"] = {"old": whole[old], "new": whole[new]}
    if wants_packages:
        lists = [contents.package_list(store, image, _version(side), whole[side]) for side in (old, new)]
        kind = next((item.kind for item in lists if item.kind != "none"), "none")
        found = replace(found, packages=packages.compare(lists[0], lists[1], kind))
        document["packages"] = words.packages_document(kind, lists[0], lists[1], found.packages)
        if not (wants_files and found.identical):
            blocks += words.package_blocks(found.packages, kind)
    if of_files:
        # What was asked for is files: the rest of the report would be in their way.
        pattern = request.match or words.EVERY_FILE
        found = replace(differences.matching(found, pattern), packages=found.packages)
        blocks += [*words.privilege_blocks(found), *words.file_blocks(found.files, 0, pattern)]
    elif wants_files:
        blocks += words.all_blocks(found, old, new)
        document.update(words.facts_document(found), identical=found.identical)
    if wants_files:
        document["privileges"] = [item._asdict() for item in found.privileges]
        document["files"] = [words.file_document(item) for item in found.files]
        blocks += [words.without_manifest(side) for side in whole if not whole[side]]
    return Report(blocks, document)


def _version(side: Side) -> Version:
    return Version(tag=side.tag) if side.tag else Version(revision=side.revision)


def _sides(request: Request, store: Store, image: OsImage) -> tuple[Side, Side]:
    """The two versions that the command line names. Raises UsageError."""
    flag, text = ("-t", request.tag) if request.tag else ("-r", request.revision)
    if bool(request.tag) == bool(request.revision):
        raise UsageError("give the two versions by -t OLD:[NEW] or by -r OLD:[NEW], exactly one of these")
    old, _, new = text.partition(":")
    if not old or ":" in new:
        raise UsageError(f"{flag} {text!r} is not of the form OLD:NEW; OLD: and OLD mean what OLD is to the newest")
    if flag == "-r":
        return _revision_side(store, image, old), _revision_side(store, image, new)
    sides = [
        Side(tag.name, tag.source, tag.date, tag.author)
        for tag in find_tags([old, new] if new else [old], store, image)
    ]
    return sides[0], sides[1] if new else _revision_side(store, image, "")


def _revision_side(store: Store, image: OsImage, text: str) -> Side:
    revision = find_revision(text, store, image)
    return Side("", revision.number, revision.date, revision.author)


# What is read from the store.


def _compared(store: Store, image: OsImage, old: Version, new: Version, whole: bool) -> Differences:
    """All that differs but the packages. whole: both have a manifest."""
    if not whole:
        return differences.of_summary(store.changes(image, old, new))
    before, after = contents.whole_manifest(store, image, old), contents.whole_manifest(store, image, new)
    found = differences.of_manifests(before, after)
    if _same(before, after, contents.STANZA):
        return found
    one, other = contents.attributes(store, image, old), contents.attributes(store, image, new)
    return replace(found, attributes=differences.attributes(one, other))


def _same(old: Manifest, new: Manifest, path: str) -> bool:
    return path in old and path in new and old[path].sha256 == new[path].sha256


# --content


def _content(store: Store, image: OsImage, old: Side, new: Side, wanted: str, document: dict[str, Any]) -> Report:
    """One file of both versions."""
    path = inside.stored(wanted)
    one, other = (contents.file(store, image, _version(side), path) for side in (old, new))
    if one is None and other is None:
        both = f"neither {words.name(old)} nor {words.name(new)}"
        raise NotFoundError(
            f"{image.name}: {both} has a file {wanted!r}; what is in the image begins with /, "
            "beside it are kernel, initrd-stateless.gz, build_info/report and the like"
        )
    facts = [texts.facts(data) for data in (one, other)]
    document = {**document, "path": inside.shown(path), "identical": one == other,
                "content": {"old": facts[0], "new": facts[1]}, "diff": None}  # fmt: skip
    if one == other:
        assert facts[0] is not None
        text = f"{wanted} is the same in both: {facts[0]['size']} bytes, SHA-256 {facts[0]['sha256']}"
        return Report([words.heading(old, new), as_lines([text])], document)
    found = [texts.text(data) for data in (one, other)]
    if found[0] is None or found[1] is None:
        rows = [(word, str(item["size"]), item["sha256"]) if item else (word, "-", "not there")
                for word, item in zip(("old", "new"), facts)]  # fmt: skip
        return Report(
            [as_lines([f"{wanted} is no text:"]), Table(("", "BYTES", "SHA-256"), rows, [LEFT, RIGHT, LEFT])], document
        )
    before, after = (
        "/dev/null" if data is None else words.label(path, side) for data, side in ((one, old), (other, new))
    )
    document["diff"] = texts.unified(found[0], found[1], before, after)
    return Report([Raw(str(document["diff"]).rstrip("\n"))], document)


MODE = Mode(
    "diff", run,
    {"tag": "two tags; without NEW: the tag and trunk", "revision": "two revisions; without NEW: that one and the newest"},
    values={"tag": "OLD:[NEW]", "revision": "OLD:[NEW]"},
)  # fmt: skip
