"""FSVS over Subversion, in the layout of avs_image_mgr: netboot/OSVERS/ARCH/PROFILE/{trunk,tags,branches}."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote as percent
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from xcat_avs import command
from xcat_avs.errors import AvsError, CommandError, NotFoundError
from xcat_avs.image import OsImage, Tag
from xcat_avs.store import MANIFEST, PROVENANCE, Hidden, Revision, Version, answers

# Subversion's codes: path not found; no repository there, or out of reach.
NO_PATH = re.compile(r"[EW](170000|160013|200009|160005)\b")
EXISTS = re.compile(r"E(160020|200011|125014|160024)\b|already exists")
NO_REVISION = re.compile(r"E160006\b")
DEAD_AFTER = 600.0  # seconds without a byte written, for a commit that goes on
ATTEMPTS = 8
MANY = 500  # targets of one command
REAL = "avs:real"  # revision property: who asked, as the system knows them
# What costs most of a first commit is looking for equal contents; compression by lz4 is almost free.
TUNING = (("rep-sharing", "enable-rep-sharing = false"), ("deltification", "compression = lz4"))


def quote(path: str) -> str:
    """A path as Subversion's canonical URLs have it; FSVS takes no other form."""
    return percent(path, safe="/!$&'()*+,-.:=@_~")


@dataclass(frozen=True)
class FsvsStore:
    """A Subversion repository at a URL. work: a private directory for FSVS's own data and logs."""

    repository: str
    work: Path
    timeout: float = 0

    def __post_init__(self) -> None:
        self._local()  # refuses what is no URL

    def url(self, image: OsImage, version: Optional[Version] = None) -> str:
        head, slashes, rest = self.repository.rstrip("/").partition("://")
        host, slash, path = rest.partition("/")
        parts = [head + slashes + host + slash + quote(unquote(path)), quote(image.store_path)]
        if version is not None:
            parts += ["tags", quote(version.tag)] if version.tag else ["trunk"]
        return "/".join(parts)

    def _peg(self, image: OsImage, version: Version, path: str = "") -> str:
        """A Subversion target: what stands before the last @ is never read as a revision."""
        url = self.url(image, version) + (f"/{quote(path)}" if path else "")
        return f"{url}@{'HEAD' if version.revision is None else version.revision}"

    def _svn(self, argv: Sequence[str]) -> command.Output:
        """Run a Subversion client. NotFoundError for a missing path, AvsError that names the store otherwise."""
        output = command.capture([argv[0], "--non-interactive", *argv[1:]], timeout=self.timeout, check=False)
        if output.code:
            lines = [line for line in output.stderr.splitlines() if line.strip()]
            if NO_PATH.search(output.stderr):
                raise NotFoundError(f"not in the store {self.repository}", lines[-3:])
            raise AvsError(f"the store {self.repository} cannot be used:", lines[-5:])
        return output

    def _local(self) -> Optional[Path]:
        """The directory of a file:// repository, or None for one on a server."""
        parts = urlsplit(self.repository)
        known = parts.scheme in ("file", "svn", "svn+ssh", "http", "https") and "://" in self.repository
        elsewhere = parts.scheme == "file" and parts.netloc not in ("", "localhost")
        if not known or elsewhere or not parts.path.strip("/"):
            raise AvsError(
                f"the store {self.repository!r} is no URL of a Subversion repository; one is file:///DIR, svn://HOST/PATH or https://HOST/PATH"
            )
        if parts.scheme != "file":
            return None
        return Path(unquote(parts.path))

    def _absent(self) -> bool:
        """Whether this is a repository of our own machine that is still to be made."""
        path = self._local()
        return path is not None and not path.exists()

    def _xml(self, argv: Sequence[str]) -> Optional[ElementTree.Element]:
        """The XML that svn answers; None where the path, or the repository yet, does not exist."""
        if self._absent():
            return None
        try:
            return ElementTree.fromstring(self._svn(argv).stdout)
        except NotFoundError:
            return None

    def prepare(self, image: OsImage, author: str) -> None:
        if self._absent():
            path = self._local()
            assert path is not None
            self._create(path)
        for attempt in range(ATTEMPTS):
            missing = [self.url(image) + f"/{name}" for name in ("trunk", "tags", "branches")]
            missing = [url for url in missing if self._xml(["svn", "info", "--xml", url + "@HEAD"]) is None]
            if not missing:
                return
            message = f"{author}; Layout for {image.name}"
            try:
                self._svn(["svn", "mkdir", "-q", "--parents", "--username", author, "-m", message, *missing])
            except AvsError as err:
                # Another first create may be making the directories above.
                if attempt == ATTEMPTS - 1 or not EXISTS.search(str(err)):
                    raise

    def _create(self, path: Path) -> None:
        """Make the repository beside its place and rename it there: it is whole or not there."""
        command.need("svnadmin")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new."))
            try:
                command.capture(["svnadmin", "create", str(temporary)], timeout=self.timeout)
                conf = temporary / "db/fsfs.conf"
                text = conf.read_text(encoding="utf-8")
                for section, setting in TUNING:
                    text = text.replace(f"[{section}]\n", f"[{section}]\n{setting}\n", 1)
                conf.write_text(text, encoding="utf-8")
                try:
                    os.rename(temporary, path)
                except OSError:
                    if not (path / "format").exists():  # else another first create was faster
                        raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except FileExistsError as err:
            raise AvsError(f"cannot make the store {self.repository}: {err.filename}: Not a directory") from None
        except OSError as err:
            raise AvsError(f"cannot make the store {self.repository}: {err.filename or path}: {err.strerror}") from None
        except CommandError as err:
            raise err.prefixed(f"cannot make the store {self.repository}: ") from None

    def _log(self, target: str, *options: str) -> list[ElementTree.Element]:
        root = self._xml(["svn", "log", "--xml", *options, target])
        return [] if root is None else list(root.iter("logentry"))

    def head(self, image: OsImage) -> Optional[Revision]:
        trunk = self._peg(image, Version())
        listing = self._xml(["svn", "ls", "--xml", trunk])
        if listing is None or listing.find(".//entry") is None:
            return None  # nothing, or the empty trunk of a first commit that did not come to its end
        return self._whole(image, Version(), "HEAD:1")

    def _whole(self, image: OsImage, version: Version, span: str) -> Optional[Revision]:
        """The newest whole revision of trunk in a span: one that brought a manifest, or was made by avs_image_mgr.

        A commit that makes links into files takes a revision before it; that one counts for nothing.
        """
        entries = self._log(self._peg(image, version, MANIFEST), "-l", "1", "-r", span)
        if not entries:
            entries = self._log(self._peg(image, version), "-l", "1", "-r", span)
        return _revision(entries[0]) if entries else None

    def revision(self, image: OsImage, number: int) -> Revision:
        found = None
        try:
            version = Version(revision=number)
            listing = self._xml(["svn", "ls", "--xml", self._peg(image, version)]) if number else None
            if listing is not None and listing.find(".//entry") is not None:
                found = self._whole(image, version, f"{number}:1")
        except AvsError as err:
            if not NO_REVISION.search(str(err)):
                raise
        if found is None:
            raise NotFoundError(
                f"{image.name} has no revision {number}; `avsimage -c show {image.profile}` shows the newest"
            )
        return found

    def commit(self, image: OsImage, tree: Path, author: str, message: str, hidden: Hidden) -> Revision:
        url = self.url(image, Version())
        self._remove_dead_transactions()
        self._make_way(url, hidden, author)
        with self._fsvs(tree) as (env, log):
            run = ["fsvs", "-q"]
            try:
                command.run([*run, "initialize", url], cwd=tree, env=env, log=log, timeout=self.timeout)
                command.run([*run, "sync-repos"], cwd=tree, env=env, log=log, timeout=self.timeout)
                # By default FSVS takes a file of the same size and second for unchanged; compare the contents.
                options = [
                    "-o",
                    "change_check=allfiles",
                    "-o",
                    "empty_commit=no",
                    "-o",
                    "author=$AVS_AUTHOR",
                ]  # FSVS would take a $ in the name for a variable
                command.run(
                    [*run, *options, "ci", "-m", message],
                    cwd=tree,
                    env={**env, "AVS_AUTHOR": author},
                    log=log,
                    timeout=self.timeout,
                )
            except CommandError as err:
                raise AvsError(
                    f"{image.name}: the commit to {self.repository} failed, nothing was stored: {err.text}", err.tail
                ) from None
        head = self.head(image)
        if head is None or head.message.strip() != message.strip():
            raise AvsError(f"{image.name}: FSVS ended well but {url} has no such revision")
        return head

    def _make_way(self, url: str, hidden: Hidden, author: str) -> None:
        """Do in trunk what FSVS would not: a revision before the one that counts.

        It cannot store a file or a directory where it has stored a link or a device. And where root owns a path,
        or its mode is 0600, it takes the owner or mode in the tree for the stored one.
        """
        # An earlier commit may have come just this far.
        lines = []
        for path in hidden.replaced:
            if self._xml(["svn", "info", "--xml", f"{url}/{quote(path)}@HEAD"]) is not None:
                lines += ["rm", f"{url}/{quote(path)}"]
        for path, entry in hidden.owners.items():
            properties = {
                "svn:owner": f"{entry.uid} {_user(entry.uid)}",
                "svn:group": f"{entry.gid} {_group(entry.gid)}",
            }
            if entry.type in ("file", "dir"):
                properties["svn:unix-mode"] = f"0{entry.mode:03o}"
            for name, value in properties.items():
                lines += ["propset", name, value, f"{url}/{quote(path)}"]
        if not lines:
            return
        self.work.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self.work, prefix="svnmucc.", encoding="utf-8") as arguments:
            arguments.write("".join(f"{line}\n" for line in lines))
            arguments.flush()
            message = f"{author}; Before a commit: kinds, owners and modes that change"
            self._svn(["svnmucc", "--username", author, "-m", message, "-X", arguments.name])

    def _remove_dead_transactions(self) -> None:
        """Remove from our own repository what commits that were killed have left."""
        path = self._local()
        if path is None or not (path / "db/transactions").is_dir():
            return
        for entry in (path / "db/transactions").glob("*.txn"):
            name = entry.name[: -len(".txn")]
            written = [entry, path / "db/txn-protorevs" / f"{name}.rev"]
            newest = max((item.stat().st_mtime for item in written if item.exists()), default=0)
            if time.time() - newest > DEAD_AFTER:
                command.capture(["svnadmin", "rmtxns", str(path), name], timeout=self.timeout, check=False)

    def export(self, image: OsImage, version: Version, target: Path) -> None:
        command_line = ["fsvs", "-q", "export"]
        if version.revision is not None:
            command_line += ["-r", str(version.revision)]
        with self._fsvs(target) as (env, log):
            try:
                command.run(
                    [*command_line, self.url(image, version)], cwd=target, env=env, log=log, timeout=self.timeout
                )
            except CommandError as err:
                raise AvsError(f"{image.name}: the checkout of {version} failed: {err.text}", err.tail) from None

    @contextmanager
    def _fsvs(self, tree: Path) -> Iterator[tuple[dict[str, str], Path]]:
        """FSVS's state for one use of a tree, apart from the host admin's own /etc/fsvs and /var/spool/fsvs."""
        command.need("fsvs")
        # A name that goes by the tree: what a run that was killed has left is found and removed.
        directory = self.work / f"fsvs.{hashlib.sha256(os.fsencode(tree)).hexdigest()[:16]}"
        shutil.rmtree(directory, ignore_errors=True)
        try:
            for name in ("conf", "waa"):
                (directory / name).mkdir(parents=True, mode=0o700)
            env = {"FSVS_CONF": str(directory / "conf"), "FSVS_WAA": str(directory / "waa")}
            yield env, directory / "log"
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def tag(self, image: OsImage, name: str, revision: int, author: str, message: str, real: str) -> None:
        target = self.url(image, Version(tag=name))
        # svnmucc adds the tag in one transaction, and fails if it exists; `svn cp` would nest into it.
        argv = [
            "svnmucc",
            "--username",
            author,
            "--with-revprop",
            f"{REAL}={real}",
            "-m",
            message,
            "cp",
            str(revision),
            self.url(image, Version()),
            target,
        ]
        try:
            self._svn(argv)
        except AvsError as err:
            if EXISTS.search(str(err)) or name in {tag.name for tag in self.tags(image)}:
                raise AvsError(
                    f"{image.name}: tag {name} exists already, and tags are never changed; take another name"
                ) from None
            raise

    def tags(self, image: OsImage) -> list[Tag]:
        tags_url = self.url(image) + "/tags"
        listing = self._xml(["svn", "ls", "--xml", tags_url + "@HEAD"])
        if listing is None:
            return []
        present = {entry.findtext("name", "") for entry in listing.iter("entry") if entry.get("kind") == "dir"}
        found: dict[str, Tag] = {}
        for entry in self._log(tags_url + "@HEAD", "-v", "--with-all-revprops"):  # the newest first
            for path in entry.iter("path"):
                name = (path.text or "").rsplit("/tags/", 1)[-1]
                if path.get("action") in ("A", "R") and name in present and name not in found:
                    made = _revision(entry)
                    source = int(path.get("copyfrom-rev") or made.number)
                    found[name] = Tag(name, made.number, source, made.date, made.author, made.message, made.real)
        return sorted(found.values(), key=lambda tag: tag.revision)

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        if self._absent():
            raise NotFoundError(f"the store {self.repository} is still empty")
        return self._svn(["svn", "cat", self._peg(image, version, path)]).stdout

    def changes(self, image: OsImage, old: Version, new: Version) -> list[tuple[str, str]]:
        ends = [f"--old={self._peg(image, old)}", f"--new={self._peg(image, new)}"]
        output = self._svn(["svn", "diff", "--summarize", "--xml", *ends])
        return answers.summary(ElementTree.fromstring(output.stdout), self.url(image, old))

    def export_directory(self, image: OsImage, version: Version, path: str, target: Path) -> None:
        # The last @ keeps one in the name of target from being read as a revision.
        self._svn(["svn", "export", "-q", self._peg(image, version, path), f"{target}@"])

    def log(self, image: OsImage) -> list[Revision]:
        found = [
            _revision(entry)
            for entry in self._log(self._peg(image, Version()), "--stop-on-copy", "--with-all-revprops")
        ]
        while found:  # the layout, and what else left trunk empty
            listing = self._xml(["svn", "ls", "--xml", self._peg(image, Version(revision=found[-1].number))])
            if listing is not None and listing.find(".//entry") is not None:
                break
            found.pop()
        # As _whole has it: once there is a manifest, each whole revision brings one.
        whole = self._changed(image, MANIFEST)
        return [item for item in found if not whole or item.number < whole[-1] or item.number in whole]

    def provenance(self, image: OsImage) -> dict[int, dict[str, Any]]:
        numbers = self._changed(image, PROVENANCE)
        targets = [self._peg(image, Version(revision=number), PROVENANCE) for number in numbers]
        parts = [self._svn(["svn", "cat", *targets[at : at + MANY]]).stdout for at in range(0, len(targets), MANY)]
        found = answers.documents(b"\n".join(parts), f"{image.name}, the stored {PROVENANCE}")
        if len(found) != len(numbers):
            raise AvsError(f"{image.name}: the stored {PROVENANCE} of a revision is damaged")
        return dict(zip(numbers, found))

    def _changed(self, image: OsImage, path: str) -> list[int]:
        """The revisions of trunk that changed a file which the newest has, the newest first."""
        entries = self._log(self._peg(image, Version(), path), "-q", "--stop-on-copy")
        return [int(entry.get("revision", "0")) for entry in entries]


def _user(uid: int) -> str:
    """The name FSVS puts beside a number; empty where this machine knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _revision(entry: ElementTree.Element) -> Revision:
    text = entry.findtext
    real = entry.findtext(f"revprops/property[@name='{REAL}']", "")
    return Revision(int(entry.get("revision", "0")), text("date", ""), text("author", ""), text("msg", ""), real)
