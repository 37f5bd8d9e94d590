"""Contents of a version by Subversion's own client, on all cores. All but contents is restored from the manifest.

`fsvs export` takes twice as long, on one core. FSVS itself is needed where a version has no manifest.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, CommandError, DamageError, NotFoundError
from xcat_avs.store.fsvs.changes import SPECIAL
from xcat_avs.store.fsvs.reading import Reading
from xcat_avs.store.fsvs.subversion import CORRUPT, ERRORS
from xcat_avs.store.kept import PARTS, beside
from xcat_avs.store.protocol import Version
from xcat_avs.system import command
from xcat_avs.system.descent import Descent
from xcat_avs.system.meter import WRITTEN
from xcat_avs.tree import manifest
from xcat_avs.tree.manifest import Entry

# Nothing from elsewhere comes in by a property, and no content is changed by one.
EXPORT = ("export", "-q", "--ignore-externals", "--ignore-keywords")
FILE_COST = 20_000  # bytes whose export takes as long as making a file
SHARES, MOST_PARTS = 3, 300  # parts that each core has at least; processes at most
ABSENT = {"E170000", "E160013", "E200009", "E160005"}  # not in the store
BATCH, BATCH_BYTES = 64, 1 << 24  # files of one `svn cat`, and their bytes


@dataclass(frozen=True)
class Part:
    """A directory of a version. whole: with all below it, not only the files in it. cost: in bytes."""

    cost: int
    path: str
    whole: bool

    @property
    def depth(self) -> str:
        return "--depth=infinity" if self.whole else "--depth=files"


def parts(wanted: Mapping[str, Entry], cores: int) -> list[Part]:
    """The directories to export side by side, so that all cores have as much to do; the largest first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter({"": 0})
    below: dict[str, list[str]] = {"": []}
    for path, entry in wanted.items():
        parent = path.rpartition("/")[0]
        if entry.type == "dir":
            below.setdefault(parent, []).append(path)
            continue
        own[parent] += FILE_COST + entry.size
    for path, cost in own.items():
        total[""] += cost
        while path:
            total[path] += cost
            path = path.rpartition("/")[0]
    done: list[Part] = []
    pending = [(-total[""], "")]
    while pending:
        cost, path = heapq.heappop(pending)
        inner = below.get(path, [])
        small = -cost * SHARES * cores <= total[""]
        if small or not inner or len(pending) + len(done) + len(inner) > MOST_PARTS:
            done.append(Part(-cost, path, whole=True))
        else:
            done.append(Part(own[path], path, whole=False))
            for name in filter(total.__getitem__, inner):  # the empty ones are made by the one who restores
                heapq.heappush(pending, (-total[name], name))
    return sorted(done, key=lambda part: -part.cost)


@dataclass(frozen=True)
class Fetching(Reading):
    """The part of the store that brings contents out of it."""

    def paths(self, image: OsImage, version: Version) -> set[str]:
        try:
            listed = self._svn(["svn", "ls", "-R", self._peg(image, version)]).text
        except DamageError as err:
            raise DamageError(failed(image, version, err), [*err.tail, *self._damage(image, version)]) from None
        return {line.rstrip("/") for line in listed.split("\n") if line}

    def fetch(self, image: OsImage, version: Version, wanted: Sequence[Entry], target: Path) -> None:
        cores = os.cpu_count() or 1
        alone, batches = _batches(wanted)
        for start in range(0, len(batches), cores):
            group = batches[start : start + cores]
            pegs = [[self._peg(image, version, entry.path) for entry in batch] for batch in group]
            calls = [["svn", "--non-interactive", "cat", "--ignore-keywords", *words] for words in pegs]
            for batch, said in zip(group, self.runner.capture_all(calls)):
                if said.code or not _divide(said.stdout, batch, target):
                    alone += batch  # which says what of it is wrong
        for entry in alone:
            self._fetch_one(image, version, entry, target / entry.sha256)

    def _fetch_one(self, image: OsImage, version: Version, entry: Entry, target: Path) -> None:
        try:
            # A content that is not there is known by the one who misses it.
            with suppress(NotFoundError):
                self._svn(["svn", *EXPORT, self._peg(image, version, entry.path), f"{target}@"])
        except AvsError as err:
            damaged = [f"damaged in the store: {entry.path}"] if isinstance(err, DamageError) else []
            raise (DamageError if damaged else AvsError)(failed(image, version, err), [*err.tail, *damaged]) from None

    def _export_contents(self, image: OsImage, version: Version, wanted: Mapping[str, Entry], target: Path) -> None:
        """Export by Subversion's client; links come with the files, devices and empty directories do not.

        No part is written where another one was, for a link there would be followed: each is made in a directory of its
        own, and then moved to its place.
        """
        cores = os.cpu_count() or 1
        try:
            with beside(target, PARTS) as directory:
                made = {part: directory / str(number) for number, part in enumerate(parts(wanted, cores))}
                words = [word for part, place in made.items()
                         for word in (part.depth, self._peg(image, version, part.path), f"{place}@")]  # fmt: skip
                arguments = directory / "arguments"
                arguments.write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
                by_three = ["xargs", "-0", "-a", str(arguments), "-n", "3", "-P", str(cores)]
                runner = self.runner.sized(manifest.size(wanted, by_name=True), WRITTEN)
                said = runner.capture([*by_three, "svn", "--non-interactive", *EXPORT], check=False)
                # What is not there is known by the one who compares.
                if said.code and not set(ERRORS.findall(said.stderr)) <= ABSENT:
                    lines = [line for line in said.stderr.splitlines() if line.strip()]
                    raise CommandError("svn export failed:", lines[-command.TAIL_LINES :])
                _place({part.path: place for part, place in made.items()}, target)
                _drop_devices(wanted, target)
        except OSError as err:
            raise CommandError(f"{err.filename or target}: {err.strerror}") from None

    def _damage(self, image: OsImage, version: Version) -> list[str]:
        """A line that names the path that is corrupt in the store; none where reading it once more finds nothing.

        A failure of FSVS alone does not prove damage: the server may have died, or a disk be full.
        """
        try:
            path = self._corrupt(image, version, "", "dir")
        except AvsError:
            return []
        return [] if path is None else [f"damaged in the store: {path or 'the directory of this version'}"]

    def _corrupt(self, image: OsImage, version: Version, path: str, kind: str) -> Optional[str]:
        """The first file at or below a path, or else the directory, that Subversion says is corrupt; else None."""
        words = [*EXPORT, "--force", self._peg(image, version, path)]
        with self._scratch() as directory:
            said = self.runner.capture(["svn", "--non-interactive", *words, f"{directory}/it"], check=False)
        if not CORRUPT.search(said.stderr):
            return None
        try:
            children = self._children(image, version, path) if kind == "dir" else []
        except AvsError:
            children = []
        below = (self._corrupt(image, version, f"{path}/{name}".lstrip("/"), kind) for name, kind in children)
        return next((found for found in below if found is not None), path)


def fit(wanted: Mapping[str, Entry]) -> bool:
    """Whether Subversion's client can export a version: it takes a link's target for a line of UTF-8, and FSVS does not."""
    targets = [entry.link for entry in wanted.values() if entry.type == "link"]
    return all("\n" not in target and target.isprintable() for target in targets)


def failed(image: OsImage, version: Version, err: AvsError) -> str:
    """The text of an error of a checkout."""
    return f"{image.name}: the checkout of {version} failed: {err.text}"


def _place(made: Mapping[str, Path], target: Path) -> None:
    """Move parts to their places in the empty directory target; one without a parent stays away."""
    for path, place in sorted(made.items()):
        with suppress(FileNotFoundError, NotADirectoryError):
            if not path:
                os.rename(place, target)
                target.chmod(0o700)
                continue
            with Descent(str(target)) as tree:
                directory, name = tree.parent(path)
                os.rename(place, name, dst_dir_fd=directory)


def _drop_devices(wanted: Mapping[str, Entry], target: Path) -> None:
    """Remove the files with the texts that stand for devices."""
    with Descent(str(target)) as tree:
        for path in (path for path, entry in wanted.items() if entry.type in SPECIAL):
            with suppress(FileNotFoundError, NotADirectoryError):
                directory, name = tree.parent(path)
                if stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=directory)


def _batches(wanted: Iterable[Entry]) -> tuple[list[Entry], list[list[Entry]]]:
    """Contents to fetch one by one, and those that one process writes one after the other."""
    alone: list[Entry] = []
    batches: list[list[Entry]] = []
    room = 0
    for entry in {entry.sha256: entry for entry in wanted}.values():
        if entry.size > BATCH_BYTES // 2:
            alone.append(entry)
            continue
        if not batches or len(batches[-1]) == BATCH or entry.size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(entry)
        room -= entry.size
    return alone, batches


def _divide(data: bytes, batch: Sequence[Entry], target: Path) -> bool:
    """Write contents that come one after the other; whether they are those that are wanted."""
    if len(data) != sum(entry.size for entry in batch):
        return False
    start = 0
    for entry in batch:
        content = data[start : start + entry.size]
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            return False
        (target / entry.sha256).write_bytes(content)
        start += entry.size
    return True
