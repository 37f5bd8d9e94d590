"""prune: remove packed sets, a build, its logs, a checkout and revisions that nothing uses."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Optional

from xcat_avs.clock import local, parse_utc
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError, UsageError, counted
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.serve import publish, sets
from xcat_avs.site import Site
from xcat_avs.store import engines
from xcat_avs.store.protocol import Store, Version
from xcat_avs.system import disk, mounts

LONGEST = 9  # digits of a number
FOREVER = 300_000  # days; no date is older


@dataclass(frozen=True)
class Item:
    """One thing that may go. date: UTC, ISO 8601. kept: why it stays whatever is asked for, or "".

    path: where it is; None for what is in the store. size: bytes that path takes on disk, of what goes.
    """

    kind: str
    name: str
    date: str
    kept: str = ""
    path: Optional[Path] = None
    size: int = 0
    remove: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Limits:
    """keep: how many of the newest stay. before: what is as new as that stays."""

    keep: int
    before: Optional[datetime]

    def chosen(self, items: Sequence[Item]) -> list[Item]:
        """Of the items of one kind those that go, the oldest first."""
        newest = sorted(items, key=lambda item: item.date, reverse=True)
        return [item for item in reversed(newest[self.keep :]) if not item.kept and self._is_old(item)]

    def _is_old(self, item: Item) -> bool:
        try:
            return self.before is None or parse_utc(item.date) < self.before
        except ValueError:
            return False  # of what does not say how old it is


def run(request: Request, site: Site) -> Report:
    image, limits = site.own_image(request), _limits(request)
    store = site.store()
    with ExitStack() as stack:
        for activity in ("build", "pack", "copy"):
            stack.enter_context(site.lock(image, activity))
        checkout = stack.enter_context(site.checkout(image))
        tags = _tags(request, site, image, store)
        revisions = list(_revisions(store, image, [item.name for item in tags]))
        kinds = [list(_sets(site, image)), *([item] for item in _directories(site, image, checkout))]
        chosen = _measured(site, [item for kind in kinds for item in limits.chosen(kind)] if limits else [])
        old = limits.chosen(revisions) if limits else []
        versions = [*(Version(tag=item.name) for item in tags), *(Version(revision=int(item.name)) for item in old)]
        content = store.forget(image, versions, dry_run=True)
        history = "" if content is not None else f"The history in {store.url(image)} stays: {_why(store.url(image))}"
        if history and tags:
            raise AvsError(f"{image.name}: nothing was removed, for tags are a part of the history. {history}")
        items = [*chosen, *([] if history else old), *tags]
        freed = sum(item.size for item in chosen) + (content or 0)
        if items and not request.dry_run:
            site.progress.say(f"removing what takes {short_size(freed)}")
            for item in chosen:
                item.remove()
            freed += (store.forget(image, versions) or 0) - (content or 0)
    return _report(request, image, items, freed, history)


def _measured(site: Site, items: Sequence[Item]) -> list[Item]:
    """The same with what they take on disk: a sparse file frees no more than its blocks."""
    used = disk.used(site.runner(), {item.name: [item.path] for item in items if item.path})
    return [replace(item, size=used.get(item.name, 0)) for item in items]


def _why(url: str) -> str:
    """Why a store removes nothing."""
    if url.startswith(engines.OSTREE):
        return "this machine only reads it; prune where images are committed to it"
    return "Subversion does not forget"


def _report(request: Request, image: OsImage, items: Sequence[Item], freed: int, history: str) -> Report:
    rows = [(item.kind, item.name, local(item.date), short_size(item.size) if item.size else "") for item in items]
    table: object = Table(("KIND", "NAME", "DATE", "SIZE"), rows, [LEFT, LEFT, LEFT, RIGHT])
    said = "Would free" if request.dry_run else "Freed"
    lines = [f"{said} {short_size(freed)} of {image.name}" if items else f"Nothing of {image.name} is to be removed"]
    lines += [history] if history else []
    listed = [{"kind": item.kind, "name": item.name, "date": item.date, "bytes": item.size} for item in items]
    document = {
        "osimage": image.name,
        "dry_run": request.dry_run,
        "removed": listed,
        "bytes": freed,
        "history_stays": bool(history),
    }
    return Report([*([table] if items else []), as_lines(lines)], document)


def _limits(request: Request) -> Optional[Limits]:
    """What stays; None where only tags are to go."""
    if not (request.keep or request.older or request.tags):
        raise UsageError("prune needs --keep N, --older DAYS, or --tags PATTERN: it never guesses what may go")
    if request.yes and not request.tags:
        raise UsageError("--yes names the tags that --tags PATTERN is to remove")
    for flag, text in (("--keep", request.keep), ("--older", request.older)):
        if text and not (text.isascii() and text.isdigit() and len(text) <= LONGEST):
            raise UsageError(f"{flag} {text!r} is no number")
    if not (request.keep or request.older):
        return None
    days = min(int(request.older or 0), FOREVER)
    return Limits(int(request.keep or 0), datetime.now(timezone.utc) - timedelta(days) if request.older else None)


def _sets(site: Site, image: OsImage) -> Iterator[Item]:
    """The packed sets of an osimage; the served one and the one before it stay, and what is not as it was packed."""
    rootimgdir = site.target(image).rootimgdir
    served = {os.path.realpath(target.rootimgdir) for target in site.targets()}
    for name, record in sets.kept(rootimgdir, image.name).items():
        directory = Path(os.path.realpath(rootimgdir.with_name(name)))
        kept = "is served" if str(directory) in served or name == sets.current(rootimgdir) else ""
        if name == sets.previous(rootimgdir):
            kept = "is kept for rollback"
        kept = kept or sets.altered(rootimgdir, name)
        yield Item(
            "set",
            name,
            record.date,
            kept,
            path=directory,
            remove=partial(publish.remove_set, directory),
        )


def _directories(site: Site, image: OsImage, checkout: Path) -> Iterator[Item]:
    """The build, its logs, and the checkout that is kept, where no other run uses it."""
    state = site.settings.state
    places = {"build": state / "builds" / image.name, "logs": site.settings.logs / image.name}
    if checkout == state / "checkouts" / image.name / "tree":
        places["checkout"] = checkout
    for kind, path in places.items():
        if path.is_dir():
            status = path.stat()
            date = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), timezone.utc)
            facts = (kind, str(path), date.strftime("%Y-%m-%dT%H:%M:%SZ"))
            yield Item(*facts, path=path, remove=partial(mounts.remove_tree, path))


def _revisions(store: Store, image: OsImage, gone: Sequence[str]) -> Iterator[Item]:
    """The revisions of trunk; the newest stays, and those of tags. gone: tags that go as well, and keep none."""
    tagged = {tag.source for tag in store.tags(image) if tag.name not in gone}
    for number, revision in enumerate(store.log(image)):
        kept = "is the newest" if not number else "is tagged" if revision.number in tagged else ""
        yield Item("revision", str(revision.number), revision.date, kept)


def _tags(request: Request, site: Site, image: OsImage, store: Store) -> list[Item]:
    """The tags that are to go, whose names must be given once more. Raises AvsError for one that is in use."""
    if not request.tags:
        return []
    found = [tag for tag in store.tags(image) if fnmatch.fnmatchcase(tag.name, request.tags)]
    if not found:
        raise NotFoundError(f"{image.name} has no tag that matches {request.tags!r}")
    for target in site.targets():
        name = sets.previous(target.rootimgdir)
        records = [
            sets.read_record(target.rootimgdir),
            sets.read_record(target.rootimgdir.parent / name) if name else None,
        ]
        used = {record.tag for record in records if record is not None and record.source == image.name}
        for tag in found:
            if tag.name in used:
                raise AvsError(
                    f"{image.name}: {target.image.name} serves tag {tag.name}, or would by a rollback; nothing was removed"
                )
    names = [tag.name for tag in found]
    if not request.dry_run and sorted(request.yes.split(",")) != sorted(names):
        raise UsageError(
            f"{request.tags!r} means {counted(len(names), 'tag')}; to remove just them, say --yes {','.join(names)}"
        )
    return [Item("tag", tag.name, tag.date) for tag in found]


MODE = Mode("prune", run)
