"""A repository that is read by http or https. What is needed of it is pulled by `ostree` into a cache on this machine."""

from __future__ import annotations

import ast
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Optional
from urllib.parse import quote, urlsplit

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store.ostree import making, refusals
from xcat_avs.store.ostree.reading import place
from xcat_avs.store.ostree.repository import SCHEME, Commit, Repository
from xcat_avs.store.ostree.store import OstreeStore
from xcat_avs.store.protocol import Version
from xcat_avs.system import command
from xcat_avs.tree.manifest import Entry, Manifest

NAME = "avs"  # of the server, in the configuration of the cache
# A ref in the summary, as `ostree remote summary --raw` prints it, and its commit: bytes that end in 0 are printed as text.
REF = re.compile(
    r"""\('([\w./-]+)', \((?:uint64 )?\d+, (?:\[((?:(?:byte )?0x[0-9a-f]{2}(?:, )?){32})\]|(b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*"))"""
)
BYTE = re.compile(r"0x([0-9a-f]{2})")


def listed(text: str) -> dict[str, str]:
    """The refs of a summary in this form: name -> checksum of the commit."""
    return {
        name: "".join(BYTE.findall(numbers)) if numbers else (ast.literal_eval(plain) + b"\0").hex()
        for name, numbers, plain in REF.findall(text)
    }


# What says how to talk to the server (tls-ca-path and so on) stays there, for the cache is made once.
SETTINGS = ((f'remote "{NAME}".gpg-verify', "false"), ("core.min-free-space-percent", "0"))


@dataclass(frozen=True)
class RemoteStore(OstreeStore):
    """The store in an OSTree repository behind a web server. caches: the directory of what is pulled of such."""

    caches: Path = Path("/nonexistent")

    def __post_init__(self) -> None:
        parts = urlsplit(self.repository[len(SCHEME) :])
        if "@" in parts.netloc:
            raise AvsError(f"the store {SCHEME}{parts.scheme}://***@{parts.netloc.rpartition('@')[2]}{parts.path} has a login in its URL, where every user of "
                           "this machine sees it; leave it out: a client certificate (see A store by OSTree in avsimage(1)) says who asks")  # fmt: skip
        if not parts.netloc or parts.query or parts.fragment:
            raise AvsError(f"the store {self.repository!r} is no URL of a repository; one is ostree:https://HOST/PATH")

    @cached_property
    def address(self) -> str:
        return self.repository[len(SCHEME) :].rstrip("/")

    @cached_property
    def files(self) -> Repository:
        """The cache."""
        return Repository(self.caches / quote(self.address, safe=""))

    def identity(self) -> str:
        self._need()
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.address))

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        number = version is not None and version.revision is not None
        return f"{SCHEME}{self.address}#{place(image, Version() if number else version)}"

    # -- what is only read

    def _read_only(self) -> AvsError:
        return AvsError(
            f"the store {self.repository} can only be read, for it is behind a web server; create, tag and prune on the machine "
            "whose store it is the mirror of"
        )

    def prepare(self, image: OsImage, author: str, anew: bool = False) -> None:
        raise self._read_only()

    @contextmanager
    def _alone(self) -> Iterator[int]:
        raise self._read_only()
        yield

    def forget(self, image: OsImage, versions: Sequence[Version], dry_run: bool = False) -> Optional[int]:
        return None

    def check(self) -> str:
        raise NotFoundError(f"the store {self.repository} is on a server: `ostree fsck` has to be run there")

    def cure(self, image: OsImage) -> str:
        return f"remove what was pulled of it (`rm -r {self.files.path}`), and it is pulled anew"

    # -- pulling

    def _need(self) -> None:
        _ = self._there

    @cached_property
    def _there(self) -> Set[str]:
        """The refs of the server, which the cache now has with their commits; asked for once in a run.

        Of what the server has no more the content goes as well.
        """
        if self.files.absent():
            if os.geteuid() != 0:
                raise AvsError(
                    f"what is read of the store {self.repository} is kept in {self.files.path}, which root makes; use sudo"
                )
            settings = ((f'remote "{NAME}".url', self.address), *SETTINGS)
            self._private()
            making.make(
                self.files.path, f"the cache {self.files.path} of the store {self.repository}", settings, self.runner
            )
        with super()._alone():
            there = self._listed()
            here = dict(self.files.all_refs())
            new = [name for name, sum in there.items() if here.get(name) != sum]
            if new:
                self._pull("pull", "--mirror", "--commit-metadata-only", NAME, *new)
            for name in here.keys() - there.keys():
                self.files.drop_ref(name)
            if here.keys() - there.keys():
                self._ostree("prune", "--refs-only", "--depth=0")
        return there.keys()

    def _private(self) -> None:
        """Have the state directory, where this is its first use, for root only, as every other use of it makes it."""
        try:
            self.caches.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise AvsError(f"cannot make {self.caches.parent}: {err.strerror}") from None

    def _listed(self) -> Mapping[str, str]:
        """The refs of the server, by its summary: name -> checksum of the commit."""
        text = self._pull("remote", "summary", "--raw", NAME)
        if "'ostree.summary." not in text:
            raise AvsError(
                f"the store {self.repository} cannot be read: {self.address}/summary is no summary of OSTree; is that the URL of the mirror itself?"
            )
        return listed(text)

    def _pull(self, *words: str) -> str:
        """Ask the server; returns what ostree says. Raises AvsError that says what the server's refusal means."""
        said = self.runner.capture(["ostree", *words, f"--repo={self.files.path}"], check=False)
        if refusals.NO_SUMMARY.search(said.stderr):  # which is said for whatever the server has answered
            said = self.runner.capture(["ostree", "pull", f"--repo={self.files.path}", NAME, NAME], check=False)
        if said.code:
            lines = [line for line in said.stderr.splitlines() if line.strip() and "GLib-" not in line]
            why = refusals.meaning(said.stderr, self.address, self.files.path)
            text = why or f"ostree {words[0]} {command.describe(said.code)}"
            raise AvsError(f"the store {self.repository} cannot be read: {text}", lines[-command.TAIL_LINES :])
        return said.text

    def _bring(self, image: OsImage, version: Version, path: str = "") -> None:
        """Have what is at a path of a version in the cache, or all of the version."""
        commit = self._found(image, version)
        if self._lacks(commit, path):
            self._pull("pull", *([f"--subpath=/{path}"] if path else []), NAME, commit.sum)

    def _lacks(self, commit: Commit, path: str) -> bool:
        if not (self.files.path / "state" / f"{commit.sum}.commitpartial").exists():
            return False  # all of it was pulled
        if not path:
            return True
        try:
            item = self.files.find(commit, path)
        except DamageError:  # a directory above it was not pulled
            return True
        return item is not None and (bool(item.meta) or not os.path.lexists(self.files.object(item.sum, "file")))

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        self._bring(image, version, path)
        return super().read(image, version, path)

    def paths(self, image: OsImage, version: Version) -> set[str]:
        self._bring(image, version)
        return super().paths(image, version)

    def fetch(self, image: OsImage, version: Version, wanted: Sequence[Entry], target: Path) -> None:
        self._bring(image, version)
        super().fetch(image, version, wanted, target)

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        for version in (old, new):
            self._bring(image, version)
        return super().changes(image, old, new)

    def export(self, image: OsImage, version: Version, target: Path, wanted: Optional[Manifest] = None) -> None:
        self._bring(image, version)
        super().export(image, version, target, wanted)

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        self._bring(image, version, path)
        super().export_directory(image, version, path, target)
