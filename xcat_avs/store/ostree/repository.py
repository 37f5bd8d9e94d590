"""The files of an OSTree repository on this machine: its configuration, refs, commits and directories.

Everything that is read is proven by the checksum that is its name. `ostree` itself writes the objects.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional
from urllib.parse import unquote

from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store.ostree import variant
from xcat_avs.store.ostree.ground import NFS
from xcat_avs.system.descent import NO_NAMES, open_regular
from xcat_avs.system.files import sync, write_atomic

SCHEME = "ostree:"
OWN = "avs"  # a section of the configuration, and a directory for locks and staging
SUM = re.compile(r"[0-9a-f]{64}")
COMMIT, DIRECTORY = "(a{sv}aya(say)sstayay)", "(a(say)a(sayay))"


class Commit(NamedTuple):
    """A commit object. meta: what it says in text. tree, top: the checksums of its directory and of that one's owner and mode."""

    sum: str
    meta: Mapping[str, str]
    tree: str
    top: str


class Item(NamedTuple):
    """A path of a version. sum: checksum of the file object or directory. meta: "" for a file, else of owner and mode."""

    path: str
    sum: str
    meta: str = ""


@dataclass(frozen=True)
class Repository:
    """A repository in a directory of this machine."""

    path: Path
    modes: Sequence[str] = ("bare",)
    cache: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def at(cls, url: str) -> Repository:
        """The one at ostree:/DIR or ostree:///DIR. Raises AvsError for any other URL."""
        path = unquote(url[len(SCHEME) :])
        if path.startswith("//"):
            path = path[2:] if path.startswith("///") else ""
        if not path.startswith("/") or not path.strip("/"):
            raise AvsError(
                f"the store {url!r} is no directory of this machine; an OSTree repository is ostree:/DIR, "
                "or, to be read only, ostree:https://HOST/PATH"
            )
        return cls(Path(path))

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.path}"

    def absent(self) -> bool:
        """Whether nothing is there, or an empty directory, as the mount point of its disk is."""
        try:
            return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
        except PermissionError:
            return False  # what it is, its configuration says, or why that cannot be read

    def uuid(self) -> str:
        """Its own identifier; "" where there is no repository, or none that avsimage has used. Raises AvsError for an unfit one."""
        return "" if self.absent() else self.config().get(OWN, "uuid", fallback="")

    def config(self) -> configparser.ConfigParser:
        """Raises AvsError where there is no repository, or one that cannot hold images."""
        found = configparser.ConfigParser(interpolation=None, strict=False)
        unusable = f"the store {self.url} cannot be used: "
        try:
            found.read_string((self.path / "config").read_text(encoding="utf-8"))
            version, mode = found.get("core", "repo_version"), found.get("core", "mode")
        except NotADirectoryError:
            raise AvsError(f"{unusable}{self.path} is a file, and no directory with an OSTree repository") from None
        except FileNotFoundError:
            raise AvsError(f"{unusable}{self.path} holds other things, and no OSTree repository") from None
        except (OSError, UnicodeDecodeError, configparser.Error) as err:
            reason = str(err.strerror) if isinstance(err, OSError) else "it is no configuration of OSTree"
            if isinstance(err, PermissionError):
                reason += f"; {NFS}" if os.geteuid() == 0 else "; as a rule only root may read it: use sudo"
            raise AvsError(f"{unusable}{self.path}/config: {reason}") from None
        if version != "1":
            raise AvsError(f"{unusable}it is of version {version}, and this avsimage knows version 1")
        if mode not in self.modes:
            why = ("which is for other machines to read by http (ostree:https://HOST/PATH)" if mode.startswith("archive")
                   else "which does not keep owners and attributes")  # fmt: skip
            raise AvsError(
                f"{unusable}it is of mode {mode}, {why}; `ostree init --mode={self.modes[0]}` makes one of the mode {self.modes[0]}"
            )
        return found

    # -- refs

    def ref(self, name: str) -> str:
        """The checksum of the commit that a ref names; "" where there is no such ref."""
        path = self.path / "refs/heads" / name
        try:
            text = path.read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return ""
        except (OSError, UnicodeDecodeError) as err:
            raise DamageError(f"the store {self.url} cannot be used: {path}: {err}") from None
        if not SUM.fullmatch(text):
            raise DamageError(f"the store {self.url} is damaged: {path} names no commit")
        return text

    def refs(self, directory: str) -> dict[str, str]:
        """Name -> checksum of the refs in a directory of refs."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = sorted(os.listdir(self.path / "refs/heads" / directory))
            return {name: sum for name in names if name[0] != "." and (sum := self.ref(f"{directory}/{name}"))}
        return {}

    def all_refs(self) -> Iterator[tuple[str, str]]:
        top = self.path / "refs/heads"
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                name = str(path.relative_to(top))
                yield name, self.ref(name)

    def set_ref(self, name: str, sum: str) -> None:
        """Have a ref name a commit, on disk."""
        path = self.path / "refs/heads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{sum}\n")

    def drop_ref(self, name: str) -> None:
        path = self.path / "refs/heads" / name
        path.unlink()
        sync(path.parent)

    # -- objects

    def object(self, sum: str, kind: str) -> Path:
        return self.path / "objects" / sum[:2] / f"{sum[2:]}.{kind}"

    def _load(self, sum: str, kind: str, signature: str, what: str) -> Any:
        """A commit or directory, proven. what: named in an error."""
        if sum in self.cache:
            return self.cache[sum]
        path = self.object(sum, kind)
        try:
            data = path.read_bytes()
            value = variant.load(signature, data) if hashlib.sha256(data).hexdigest() == sum else None
        except FileNotFoundError:
            raise DamageError(f"damaged in the store {self.url}: {what}: {path} is gone") from None
        except OSError as err:
            raise AvsError(f"the store {self.url} cannot be used: {path}: {err.strerror}") from None
        except (ValueError, IndexError, StopIteration, RecursionError):
            value = None
        if value is None:
            raise DamageError(f"damaged in the store {self.url}: {what}: {path} is not what its checksum says")
        self.cache[sum] = value
        return value

    def commit(self, sum: str, what: str) -> Commit:
        """Raises DamageError that begins with what it is."""
        meta, _, _, _, _, _, tree, top = self._load(sum, "commit", COMMIT, what)
        texts = {key: value for key, value in meta if isinstance(value, str)}
        return Commit(sum, texts, tree.hex(), top.hex())

    def directory(self, sum: str, path: str) -> tuple[Sequence[Item], Sequence[Item]]:
        """The files and the directories in a directory, which is at path, in their order."""
        what = path or "the directory of this version"
        files, directories = self._load(sum, "dirtree", DIRECTORY, what)
        above = f"{path}/" if path else ""
        names = [name for name, *_ in (*files, *directories)]
        for name in names:
            if name in NO_NAMES or "/" in name or "\0" in name:
                raise DamageError(
                    f"damaged in the store {self.url}: {what} holds a path that leads elsewhere: {name!a}"
                )
        if len(set(names)) < len(names):  # through a link of the same name `ostree` would write elsewhere
            raise DamageError(f"damaged in the store {self.url}: {what} holds a name twice")
        return ([Item(above + name, sum.hex()) for name, sum in files],
                [Item(above + name, sum.hex(), meta.hex()) for name, sum, meta in directories])  # fmt: skip

    def walk(self, sum: str, path: str = "") -> Iterator[Item]:
        """All that is below a directory; a directory comes before what is in it."""
        pending = [Item(path, sum)]
        while pending:
            at = pending.pop()
            files, directories = self.directory(at.sum, at.path)
            yield from files
            yield from directories
            pending += directories

    def objects(self, sums: Iterable[str]) -> set[Path]:
        """The objects of commits, each once."""
        found: set[Path] = set()
        for sum in sums:
            commit = self.commit(sum, sum)
            found |= {self.object(sum, "commit"), self.object(commit.top, "dirmeta")}
            pending = [Item("", commit.tree)]
            while pending:
                at = pending.pop()
                if self.object(at.sum, "dirtree") in found:
                    continue
                found.add(self.object(at.sum, "dirtree"))
                files, directories = self.directory(at.sum, at.path)
                found |= {self.object(item.sum, "file") for item in files}
                found |= {self.object(item.meta, "dirmeta") for item in directories}
                pending += directories
        return found

    def find(self, commit: Commit, path: str) -> Optional[Item]:
        """The path of a version; None where it has no such path."""
        at: Optional[Item] = Item("", commit.tree, commit.top)
        for part in path.split("/"):
            if at is None or not at.meta:
                return None
            files, directories = self.directory(at.sum, at.path)
            wanted = f"{at.path}/{part}".lstrip("/")
            at = next((item for item in (*files, *directories) if item.path == wanted), None)
        return at

    def content(self, item: Item) -> bytes:
        """The content of a regular file. Raises NotFoundError for anything else."""
        path = self.object(item.sum, "file")
        try:
            with open(open_regular(str(path)), "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            raise DamageError(f"damaged in the store {self.url}: {item.path!a}: {path} is gone") from None
        except OSError as err:
            if path.is_symlink():
                raise NotFoundError(f"not in the store {self.url} as a file: {item.path!a}") from None
            raise AvsError(f"the store {self.url} cannot be used: {path}: {err.strerror}") from None
