"""Copy all that a store has of an image into another one, each version proven by its manifest on both sides."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, DamageError, NotFoundError, counted
from xcat_avs.store import kept, layout
from xcat_avs.store.carried import INFO, OWN, add, carried, held, own
from xcat_avs.store.protocol import MANIFEST, Content, NewTag, Revision, Store, Version
from xcat_avs.store.signatures import digest
from xcat_avs.store.trees import Warn, checkout_tree, held_by, stored_manifest, stored_tree
from xcat_avs.system import mounts
from xcat_avs.tree import scan
from xcat_avs.tree.manifest import Manifest

REPORT = f"{INFO}/report"


@dataclass(frozen=True)
class Pair:
    """A revision as the one store has it, and as the other one does."""

    old: Revision
    new: Revision


@dataclass(frozen=True)
class Plan:
    """What a store lacks of an image, the oldest first.

    pairs: the revisions that both have. tags: each with the revision that it is of. unfit: name of a tag -> why it stays
    away. further: how many revisions the other store has made since.
    """

    revisions: Sequence[Revision]
    tags: Sequence[tuple[Tag, Revision]]
    pairs: Sequence[Pair]
    unfit: Mapping[str, str]
    further: int = 0


def _mark(revision: Revision) -> tuple[int, str]:
    """By what a revision is known in every store: the number that it was made with, and when, in microseconds."""
    return revision.first, revision.date


def plan(source: Store, target: Store, image: OsImage) -> Plan:
    """Compare what two stores have of an image. Raises AvsError where the target has a history of its own."""
    history, known = source.log(image)[::-1], target.log(image)[::-1] if target.identity() else []
    if not history:
        raise NotFoundError(f"{image.name} has no revision in {source.url(image)}, so there is nothing to copy")
    there = {_mark(revision): revision for revision in known}
    pairs = [Pair(revision, there[_mark(revision)]) for revision in history if _mark(revision) in there]
    further = len(known) - 1 - known.index(pairs[-1].new) if pairs else len(known)
    if known and not pairs:
        raise AvsError(
            f"{image.name}: {_foreign(target, image)}: {counted(len(known), 'revision')}, none of them from here"
        )
    if pairs and not _same(source, target, image, pairs[-1]):
        raise AvsError(
            f"{image.name}: {_foreign(target, image)}: its revision {pairs[-1].new.number} is not {pairs[-1].old.number} of here, as it says"
        )
    missing = history[history.index(pairs[-1].old) + 1 :] if pairs else history
    if further and missing:
        raise AvsError(
            f"{image.name}: {_foreign(target, image)}: after revision {pairs[-1].old.number} the two differ, with "
            f"{counted(len(missing), 'revision')} here and {further} there"
        )
    reached = [*(pair.old for pair in pairs), *missing]
    tags, unfit = _tags(source, target, image, history, reached)
    return Plan(missing, tags, pairs, unfit, further=further)


def _foreign(target: Store, image: OsImage) -> str:
    return f"nothing was copied, for {target.url(image)} has another history of it"


def _same(source: Store, target: Store, image: OsImage, pair: Pair) -> bool:
    """Whether a revision is the same in both stores. Of one without a manifest its number and date say so."""
    if not source.brought(image, pair.old.number, MANIFEST):
        return True
    sums = [digest(store, image, Version(revision=revision.number))
            for store, revision in ((source, pair.old), (target, pair.new))]  # fmt: skip
    return sums[0] == sums[1]


def _tags(
    source: Store, target: Store, image: OsImage, history: Sequence[Revision], reached: Sequence[Revision]
) -> tuple[list[tuple[Tag, Revision]], dict[str, str]]:
    """The tags that the target lacks, and those that cannot be copied. Raises AvsError where it has another of a name."""
    present = {tag.name: tag for tag in target.tags(image)} if target.identity() else {}
    found, unfit = list[tuple[Tag, Revision]](), dict[str, str]()
    for tag in source.tags(image):
        other = present.get(tag.name)
        if other is not None:
            if (other.date, other.author, other.signature) != (tag.date, tag.author, tag.signature):
                raise AvsError(
                    f"{image.name}: {_foreign(target, image)}: its tag {tag.name} is another one, of {other.date}"
                )
            continue
        # One that avs_image_mgr made may name a later number, at which trunk was still the same.
        revision = next((item for item in reversed(history) if item.number <= tag.source), None)
        if revision is None:
            unfit[tag.name] = "it is of no revision of trunk"
        elif source.changes(image, Version(revision=revision.number), Version(tag=tag.name)):
            unfit[tag.name] = f"it is not what revision {revision.number} is: it was changed after it was made"
        elif revision not in reached:
            unfit[tag.name] = f"its revision, {revision.number}, was removed there"
        else:
            found.append((tag, revision))
    return found, unfit


@dataclass(frozen=True)
class Copying:
    """One copy. work: a private directory on a disk with room for two trees. tell(): takes what is done now, in words.

    The trees are one level further down: whoever owns the directory holds a lock on it, which a commit takes beside a tree.
    """

    source: Store
    target: Store
    image: OsImage
    work: Path
    warn: Warn
    tell: Callable[[str], None]

    def copy(self, todo: Plan) -> Iterator[Pair]:
        """Copy what is to do, and yield each revision once it is proven. A copy that is killed goes on there."""
        numbers = {pair.old.number: pair.new.number for pair in todo.pairs}
        if todo.pairs:
            self.tell(f"looking at revision {todo.pairs[-1].new.number}, the last one that is there")
            self._proven(todo.pairs[-1].new)  # the copy that made it may have been killed before it had
        for place, old in enumerate(todo.revisions, 1):
            self.tell(f"copying revision {old.number} ({place} of {len(todo.revisions)})")
            new = self._revision(old)
            numbers[old.number] = new.number
            yield Pair(old, new)
        for tag, revision in todo.tags:
            self.tell(f"copying tag {tag.name}")
            self._tag(tag, revision, numbers[revision.number])

    def _revision(self, old: Revision) -> Revision:
        tree = self.work / "trees/source"
        wanted = self._taken(old, tree)
        self.target.prepare(self.image, old.author)
        head = self.target.head(self.image)
        before = self._before(head) if head else None
        content = Content(tree, held(wanted, own(tree)), before, head, aside=sorted(carried(wanted)), copied=old)
        new = self.target.commit(self.image, content, old.author, old.message)
        if self._proven(new) != wanted:
            raise DamageError(
                f"{self.image.name}: the manifest of {self._where(new)} is not that of revision {old.number}"
            )
        return new

    def _before(self, head: Revision) -> Manifest:
        """What the target holds of its newest revision."""
        stored = None
        if self.target.brought(self.image, head.number, MANIFEST):
            stored = stored_manifest(self.target, self.image, Version(revision=head.number))
        if stored is None:
            return stored_tree(self.target, self.image, head, self.work / "trees")
        return held_by(self.target, self.image, head, stored)

    def _proven(self, new: Revision) -> Manifest:
        """The manifest of a revision of the target, which is checked out and compared with it."""
        try:
            return checkout_tree(
                self.target, self.image, Version(revision=new.number), self.work / "trees/copy", self.warn
            )
        except AvsError as err:
            raise err.prefixed(f"{self._where(new)} is not what was copied: ") from None

    def _where(self, new: Revision) -> str:
        return f"revision {new.number} of {self.target.url(self.image)}"

    def _taken(self, old: Revision, tree: Path) -> Manifest:
        """Have a revision of the source as a tree with its manifest, by which it is proven; returns that."""
        version = Version(revision=old.number)
        if self.source.brought(self.image, old.number, MANIFEST):
            return checkout_tree(self.source, self.image, version, tree, self.warn)
        # An older manifest says nothing of what others have committed since; but it may have been a property only.
        with suppress(AvsError):
            if stored_manifest(self.source, self.image, version) is not None:
                return checkout_tree(self.source, self.image, version, tree, self.warn)
        with kept.anew(tree) as new:
            self.source.export(self.image, version, new)
            _clear(new)
            present = scan.scan(str(new))
            layout.check(present, f"{self.image.name}, {version}")
            add(new, present, carried(present))
        return present

    def _tag(self, tag: Tag, revision: Revision, number: int) -> None:
        original = revision.first if revision.first != number else 0
        self.target.tag(self.image, NewTag(
            tag.name, number, tag.author, tag.message,
            real=tag.real, signature=tag.signature, date=tag.date, original=original,
        ))  # fmt: skip
        sums = {
            digest(self.target, self.image, version) for version in (Version(revision=number), Version(tag=tag.name))
        }
        if len(sums) > 1:
            raise DamageError(f"{self.image.name}: tag {tag.name} of {self.target.url(self.image)} is not its revision")


def _clear(tree: Path) -> None:
    """Make a directory build_info without a manifest in a version that avs_image_mgr made, or that others changed since.

    Where it is a file, as it once was, that is the report. All keeps its time, so that each copy is the same.
    """
    info, report = tree / INFO, tree / ".report"
    status = os.lstat(info if os.path.lexists(info) else tree / "rootimg")
    if stat.S_ISREG(status.st_mode):
        os.rename(info, report)
    elif not stat.S_ISDIR(status.st_mode):
        return  # which the layout refuses
    info.mkdir(exist_ok=True)
    if report.exists():
        os.rename(report, tree / REPORT)
    for path in OWN:
        mounts.remove_tree(tree / path)
    os.utime(info, ns=(status.st_atime_ns, status.st_mtime_ns))
