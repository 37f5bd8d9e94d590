"""The store in an OSTree repository: what is in it is written by `ostree`, and its refs by us."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError
from xcat_avs.store.ostree import ground, making, mirror, staging
from xcat_avs.store.ostree.reading import (
    AUTHOR,
    DATE,
    IMAGE,
    MADE_BY,
    MANIFEST_SUM,
    MESSAGE,
    ORIGINAL,
    REAL,
    REVISION,
    SIGNATURE,
    TAG,
    Reading,
    facts_of,
    place,
)  # fmt: skip
from xcat_avs.store.ostree.repository import OWN, SUM, Commit
from xcat_avs.store.protocol import MANIFEST, PLAIN, PROVENANCE, Content, NewTag, Revision, Version
from xcat_avs.system import command, libc
from xcat_avs.system.descent import read_file
from xcat_avs.system.files import sync
from xcat_avs.system.meter import READ, WRITTEN
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import manifest, restore
from xcat_avs.tree.manifest import Manifest

BOOT = Path("/proc/sys/kernel/random/boot_id")
STAGING = "staging."
# A commit is on disk before its ref moves: one syncfs, not one for each directory of objects. The disk may become full.
SETTINGS = (("core.fsync", "false"), ("core.min-free-space-percent", "0"))
LONGEST = 100_000  # bytes of one text on a command line; the kernel takes 131,071
FOUND = b"f"  # what `ostree fsck` marks a commit with whose content it has found damaged
SHOWN = 10  # paths that an error lists


@dataclass(frozen=True)
class OstreeStore(Reading):
    """The store in an OSTree repository."""

    def prepare(self, image: OsImage, author: str, anew: bool = False) -> None:
        if self.files.absent():
            if not anew and self.evidence():
                self._need()
            settings = (*SETTINGS, (f"{OWN}.uuid", str(uuid.uuid4())))
            making.make(self.files.path, f"the store {self.repository}", settings, self.runner)
        if not self.identity():
            self._ostree("config", "set", f"{OWN}.uuid", str(uuid.uuid4()))
        try:
            why = ground.unfit(self.files.path / "tmp")
            if why:
                raise AvsError(f"the store {self.repository} cannot be written: {why}")
            for name in ("tags", "revisions"):
                (self.files.path / "refs/heads" / place(image) / name).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise AvsError(f"the store {self.repository} cannot be written: {err.filename}: {err.strerror}") from None
        if mirror.named(self.files):
            with self._alone():
                pass  # a create that changes nothing brings it up to date, too

    def _sized(self, total: int, word: str) -> OstreeStore:
        """The same for programs that have so many bytes to read or write; 0: nobody knows."""
        return replace(self, runner=self.runner.sized(total, word))

    def _ostree(self, *words: str) -> str:
        """Run ostree on the repository; returns what it says. Raises AvsError that names the store."""
        return self._ostrees([words])[0]

    def _ostrees(self, calls: Sequence[Sequence[str]]) -> list[str]:
        """The same side by side."""
        argvs = [["ostree", words[0], f"--repo={self.files.path}", *words[1:]] for words in calls]
        outputs = self.runner.capture_all(argvs)
        for argv, output in zip(argvs, outputs):
            if output.code:
                lines = [line for line in output.stderr.splitlines() if line.strip() and "GLib-" not in line]
                text = f"the store {self.repository} cannot be used: ostree {argv[1]} {command.describe(output.code)}:"
                raise AvsError(text, lines[-command.TAIL_LINES :])
        return [output.text.strip() for output in outputs]

    # -- writing

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Wait for the lock on the repository and hold it; yields its open file, where a commit notes that it goes on."""
        path = self.files.path / OWN / "lock"
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise AvsError(f"the store {self.repository} cannot be written: {path}: {err.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            noted = os.pread(descriptor, 100, 0)
            if noted and noted != BOOT.read_bytes():
                # The machine went down in a commit. Of what no version has yet, not all may have reached the disk.
                self._ostree("prune", "--refs-only")
            if noted:
                os.ftruncate(descriptor, 0)
            mirror.update(self.files, self.runner)  # where the one before was interrupted in that
            yield descriptor
        except OSError as err:
            raise AvsError(
                f"the store {self.repository} cannot be written: {err.filename or path}: {err.strerror}"
            ) from None
        finally:
            os.close(descriptor)

    def forget(self, image: OsImage, versions: Sequence[Version], dry_run: bool = False) -> Optional[int]:
        with self._alone():
            names = {place(image, version) for version in versions}
            refs = dict(self.files.all_refs())
            others = [name for name in refs if not name.startswith("netboot/")]
            if others and names:
                text = f"the store {self.repository} has refs of others ({', '.join(others[:3])}), whose history would go as well"
                raise AvsError(f"{image.name}: {text}; nothing was removed")
            kept = self.files.objects({commit for name, commit in refs.items() if name not in names})
            gone = self.files.objects({commit for name, commit in refs.items() if name in names}) - kept
            sizes = {path: path.lstat().st_blocks * 512 for path in gone}
            if not dry_run:
                for name in names & refs.keys():
                    self.files.drop_ref(name)
                # Each revision has a ref, so that a commit's parents need not be kept for it.
                self._ostree("prune", "--refs-only", "--depth=0")
                sizes = {path: size for path, size in sizes.items() if not os.path.lexists(path)}
                mirror.update(self.files, self.runner)
            return sum(sizes.values())

    def commit(self, image: OsImage, content: Content, author: str, message: str) -> Revision:
        try:
            with self._alone() as lock:
                before = self._read(image, Version())
                if (int(before.meta[REVISION]) if before else 0) != (content.base.number if content.base else 0):
                    where = self.url(image, Version())
                    raise AvsError(
                        f"somebody else has committed to {where} meanwhile; `avsimage -c create` with -b resumes the build"
                    )
                number = content.base.number + 1 if content.base else 1
                if content.copied:
                    number = max(number, content.copied.number)
                os.pwrite(lock, BOOT.read_bytes(), 0)
                os.fsync(lock)
                facts = {REVISION: str(number), **self._facts(content), **facts_of(content.copied, number)}
                sum = self._write(content, before, self._words(image, author, message, facts))
                libc.syncfs(self.files.path)
                for version in (Version(revision=number), Version()):
                    self.files.set_ref(place(image, version), sum)
                os.ftruncate(lock, 0)
                mirror.update(self.files, self.runner)
        except AvsError as err:
            raise AvsError(
                f"{image.name}: the commit failed, nothing was stored: {err.text}", err.tail, err.log
            ) from None
        return self.revision(image, number)

    def _facts(self, content: Content) -> dict[str, str]:
        """What the tree says of itself, for the commit."""
        found = {}
        manifest, provenance = (read_file(str(content.tree), path) for path in (MANIFEST, PROVENANCE))
        if manifest is not None:
            found[MANIFEST_SUM] = hashlib.sha256(manifest).hexdigest()
        if provenance is not None and len(provenance) < LONGEST:
            found[MADE_BY] = provenance.decode("utf-8", "replace")
        return found

    def _words(self, image: OsImage, author: str, message: str, facts: Mapping[str, str]) -> list[str]:
        """Options of a commit: it is of no ref yet, for a ref moves when all is on disk, and says what it is."""
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        facts = {IMAGE: image.store_path, AUTHOR: author, DATE: date, MESSAGE: message, **facts}
        texts = {key: os.fsencode(value).decode("utf-8", "replace") for key, value in facts.items()}
        subject, _, body = texts[MESSAGE].partition("\n")
        return ["--orphan", "--no-bindings", f"--subject={subject}", f"--body={body}",
                *(f"--add-metadata-string={key}={value}" for key, value in texts.items())]  # fmt: skip

    def _write(self, content: Content, before: Optional[Commit], words: Sequence[str]) -> str:
        """Write a commit and all that is new in it; returns its checksum."""
        kept: Sequence[str] = ()
        if restore.unkept(self.files.path / OWN):  # as NFS; the manifest has them
            content, kept = staging.without_attributes(content), ("--no-xattrs",)
        if content.before is None or before is None:
            store = self._sized(manifest.size(content.entries, by_name=True), READ)
            with own_directory(content.tree.parent, PLAIN) as directory:
                made = staging.parts(content, directory, os.cpu_count() or 1)
                part = ["commit", "--orphan", "--no-bindings", *kept]
                sums = store._ostrees([[*part, f"--tree=dir={path}"] for path in made])
            return self._sum("commit", *words, *(f"--tree=ref={sum}" for sum in sums))
        # Hard links lead only to the file system of the repository.
        with own_directory(self.files.path / OWN, STAGING) as directory:
            tree = directory / "tree"
            # Without --require-hardlinks: of a content that has as many names as the file system allows the next is a copy.
            self._ostree("checkout", "--fsync=no", before.sum, str(tree))
            staging.change(content, tree)
            words = [*words, *kept, f"--parent={before.sum}", "--devino-canonical"]
            return self._sum("commit", *words, f"--tree=dir={tree}")

    def _sum(self, *words: str) -> str:
        said = self._ostree(*words)
        if not SUM.fullmatch(said):
            raise AvsError(
                f"ostree {words[0]} ended well and says nothing of a commit in {self.repository}", said.splitlines()
            )
        return said

    def tag(self, image: OsImage, new: NewTag) -> None:
        source = self._found(image, Version(revision=new.source))
        with self._alone():
            if self.files.ref(place(image, Version(tag=new.name))):
                raise AvsError(
                    f"{image.name}: tag {new.name} exists already, and tags are never changed; take another name"
                )
            facts = {TAG: new.name, REAL: new.real, REVISION: str(new.source)}
            copied = {SIGNATURE: new.signature, DATE: new.date, ORIGINAL: str(new.original or "")}
            facts.update({key: value for key, value in copied.items() if value})
            facts.update({key: source.meta[key] for key in (MANIFEST_SUM, MADE_BY) if key in source.meta})
            words = self._words(image, new.author, new.message, facts)
            sum = self._sum("commit", *words, "--parent=none", f"--tree=ref={source.sum}")
            path = self.files.object(sum, "commit")
            for item in (path, path.parent, path.parent.parent):
                sync(item)
            self.files.set_ref(place(image, Version(tag=new.name)), sum)
            mirror.update(self.files, self.runner)

    # -- reading by ostree itself

    def export(self, image: OsImage, version: Version, target: Path, wanted: Optional[Manifest] = None) -> None:
        commit = self._found(image, version)
        for _ in self.files.walk(commit.tree):
            pass  # each directory is proven, and each name leads nowhere else, before anything is written
        os.rmdir(target)  # ostree makes it, and follows nothing that is there
        try:
            store = self._sized(manifest.size(wanted or {}, by_name=True), WRITTEN)
            store._ostree("checkout", "--force-copy", "--fsync=no", commit.sum, str(target))
            target.chmod(0o700)
        except AvsError as err:
            target.mkdir(exist_ok=True)
            gone = [item.path for item in self.files.walk(commit.tree)
                    if not item.meta and not os.path.lexists(self.files.object(item.sum, "file"))]  # fmt: skip
            lines = [f"damaged in the store: {path}" for path in gone[:SHOWN]]
            text = f"{image.name}: the checkout of {version} failed: {err.text}"
            raise (DamageError if gone else AvsError)(text, [*err.tail, *lines]) from None

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        commit = self._found(image, version)
        item = self.files.find(commit, path)
        if item is None or not item.meta:
            self.read(image, version, path)  # which says that it is not there
            raise AvsError(f"{image.name}: {path!a} of {version} is no directory")
        for _ in self.files.walk(item.sum, path):
            pass
        self._ostree(
            "checkout", "--user-mode", "--force-copy", "--fsync=no", f"--subpath=/{path}", commit.sum, str(target)
        )

    def cure(self, image: OsImage) -> str:
        path = self.files.path
        return f"put back the file from a copy of the repository, or another repository in place of {path} (create with --new-store)"

    def check(self) -> str:
        self._need()
        for mark in (self.files.path / "state").glob("*.commitpartial"):
            with suppress(OSError):
                if mark.read_bytes() == FOUND:  # which would fail the check though the file was put back
                    mark.unlink()
        words = ["ostree", "fsck", f"--repo={self.files.path}", "--quiet", "--all"]
        said = self.runner.capture(words, check=False)
        if said.code:
            lines = [line for line in said.stderr.splitlines() if line.strip()]
            text = f"the store is damaged: ostree fsck --repo={self.files.path} {command.describe(said.code)}"
            raise DamageError(text, [*lines[-command.TAIL_LINES :], *self._damaged(set(SUM.findall(said.stderr)))])
        return f"ostree fsck --repo={self.files.path}"

    def _damaged(self, sums: Collection[str]) -> list[str]:
        """Where these objects are, a line each, in one of the versions that have them."""
        found: dict[str, str] = {}
        for ref, sum in self.files.all_refs():
            try:
                commit = self.files.commit(sum, ref)
                for item in self.files.walk(commit.tree):
                    if item.sum in sums or item.meta in sums:
                        found.setdefault(item.path, ref)
            except DamageError as err:
                found.setdefault(err.text, ref)
        return [f"damaged: {path} of {ref}" for path, ref in found.items()][:SHOWN]
