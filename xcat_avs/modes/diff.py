"""diff: what changed between two tags or revisions, without a checkout."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Optional

from xcat_avs.definitions import stanza
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.diff import differences, words
from xcat_avs.diff.differences import Differences
from xcat_avs.diff.words import Side
from xcat_avs.errors import AvsError, NotFoundError, UsageError
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Raw, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.carried import CARRIED
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.store.tags import find_revision, find_tags
from xcat_avs.store.trees import INPUTS, stored_manifest
from xcat_avs.system import mounts
from xcat_avs.tree import inside, packages, scan
from xcat_avs.tree.manifest import Manifest
from xcat_avs.tree.packages import PackageList

STANZA = f"{INPUTS}/osimage.stanza"


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
        lists = [_packages(store, image, _version(side), whole[side]) for side in (old, new)]
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
    before, after = _manifest(store, image, old), _manifest(store, image, new)
    found = differences.of_manifests(before, after)
    if _same(before, after, STANZA):
        return found
    one, other = _attributes(store, image, old), _attributes(store, image, new)
    return replace(found, attributes=differences.attributes(one, other))


def _manifest(store: Store, image: OsImage, version: Version) -> Manifest:
    found = stored_manifest(store, image, version)
    if found is None:
        raise AvsError(f"{image.name}: {version} has lost its manifest, which its revision of trunk has")
    return found


def _same(old: Manifest, new: Manifest, path: str) -> bool:
    return path in old and path in new and old[path].sha256 == new[path].sha256


def _read(store: Store, image: OsImage, version: Version, path: str) -> Optional[bytes]:
    try:
        return store.read(image, version, path)
    except NotFoundError:
        return None


def _file(store: Store, image: OsImage, version: Version, path: str) -> Optional[bytes]:
    """A file of a version, also where FSVS cannot store its name."""
    data = _read(store, image, version, path)
    entry = None if data is not None else (stored_manifest(store, image, version) or {}).get(path)
    if entry is not None and entry.type == "file":
        data = _read(store, image, version, f"{CARRIED}/{entry.sha256}")
    return data


def _attributes(store: Store, image: OsImage, version: Version) -> dict[str, str]:
    """The attributes of the definition that a version was built from; none where it does not say."""
    data = _read(store, image, version, STANZA) or b""
    images = stanza.parse(data.decode("utf-8", "replace"), f"{image.name}, {STANZA} of {version}")
    return {key: value for found in images.values() for key, value in found.attributes.items()}


def _packages(store: Store, image: OsImage, version: Version, listed: bool) -> PackageList:
    """The packages of a version: as it lists them, else by the database in it. listed: its list can be its own."""
    data = _read(store, image, version, packages.STORED) if listed else None
    if data is not None:
        origin = f"{image.name}, {packages.STORED} of {version}"
        return packages.load(data.decode("utf-8", "replace"), origin)
    data = _read(store, image, version, f"rootimg/{packages.DPKG_STATUS}")
    if data is not None:
        return packages.parse_status(data.decode("utf-8", "replace"))
    with mounts.temporary_directory() as root:
        for directory in packages.RPM_DATABASES:
            (root / directory).parent.mkdir(parents=True, exist_ok=True)
            try:
                store.export_directory(image, version, f"rootimg/{directory}", root / directory)
            except NotFoundError:
                continue
        _keep_within(root)
        try:
            return packages.read(root)
        except AvsError as err:
            hint = "; --files compares only the files"
            raise err.prefixed(f"{image.name}: the packages of {version} cannot be read: ", hint) from None


def _keep_within(root: Path) -> None:
    """Remove links of an exported part of an image that lead out of it: rpm would read what is there."""
    for path, status in scan.walk(str(root)):
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            real = os.path.realpath(root / path)
            if not stat.S_ISLNK(status.st_mode) or not real.startswith(f"{os.path.realpath(root)}/"):
                (root / path).unlink()


# --content


def _content(store: Store, image: OsImage, old: Side, new: Side, wanted: str, document: dict[str, Any]) -> Report:
    """One file of both versions."""
    path = inside.stored(wanted)
    one, other = (_file(store, image, _version(side), path) for side in (old, new))
    if one is None and other is None:
        both = f"neither {words.name(old)} nor {words.name(new)}"
        raise NotFoundError(
            f"{image.name}: {both} has a file {wanted!r}; what is in the image begins with /, "
            "beside it are kernel, initrd-stateless.gz, build_info/report and the like"
        )
    facts = [_facts(data) for data in (one, other)]
    document = {**document, "path": inside.shown(path), "identical": one == other,
                "content": {"old": facts[0], "new": facts[1]}, "diff": None}  # fmt: skip
    if one == other:
        assert facts[0] is not None
        text = f"{wanted} is the same in both: {facts[0]['size']} bytes, SHA-256 {facts[0]['sha256']}"
        return Report([words.heading(old, new), as_lines([text])], document)
    texts = [_text(data) for data in (one, other)]
    if texts[0] is None or texts[1] is None:
        rows = [(word, str(item["size"]), item["sha256"]) if item else (word, "-", "not there")
                for word, item in zip(("old", "new"), facts)]  # fmt: skip
        return Report(
            [as_lines([f"{wanted} is no text:"]), Table(("", "BYTES", "SHA-256"), rows, [LEFT, RIGHT, LEFT])], document
        )
    before, after = (
        "/dev/null" if data is None else words.label(path, side) for data, side in ((one, old), (other, new))
    )
    document["diff"] = "".join(difflib.unified_diff(_lines(texts[0]), _lines(texts[1]), before, after))
    return Report([Raw(str(document["diff"]).rstrip("\n"))], document)


def _facts(data: Optional[bytes]) -> Optional[dict[str, Any]]:
    return None if data is None else {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _text(data: Optional[bytes]) -> Optional[str]:
    """The file as text; None for what is none. A file that is not there has no lines."""
    try:
        text = (data or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _lines(text: str) -> list[str]:
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + ([f"{last}\n\\ No newline at end of file\n"] if last else [])


MODE = Mode(
    "diff", run,
    {"tag": "two tags; without NEW: the tag and trunk", "revision": "two revisions; without NEW: that one and the newest"},
    values={"tag": "OLD:[NEW]", "revision": "OLD:[NEW]"},
)  # fmt: skip
