"""Run Subversion's own programs on one repository, and remove what killed commits have left."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional
from urllib.parse import quote as percent
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from xcat_avs.errors import AvsError, CommandError, DamageError, NotFoundError
from xcat_avs.identity import login_name
from xcat_avs.store.evidence import missing
from xcat_avs.store.fsvs import refusals
from xcat_avs.system import command, masking, mounts
from xcat_avs.system.runner import QUIET, Output, Runner
from xcat_avs.system.scratch import made_whole, own_directory

# In what is nothing but a URL it may also have spaces, quotes and brackets.
PASSWORD = re.compile(r"(://[^/:]*):[^/]*@")
# Subversion's codes: path not found, in a repository that is there and within reach.
NO_PATH = re.compile(r"\A(?!.*E170013).*[EW](170000|160013|200009|160005)\b", re.DOTALL)
EXISTS = re.compile(r"E(160020|200011|125014|160024)\b|already exists")
ERRORS = re.compile(r"\bE\d{6}\b")
NO_RIGHT = re.compile(r"\bE0000(?:13|01)\b|Permission denied")
NO_REVISION = re.compile(r"E160006\b")
# FSVS has the number in brackets, or after "returns": what it was to add is there already.
OUT_OF_DATE = re.compile(r"[E(](155011|160028|170004|160024)\b|returns 160020\b")
# Errors of damaged data: wrong checksums, damaged records and indexes, files that end too early.
CORRUPT = re.compile(r"E(160004|160009|160051|16005[4-8]|16006[1245]|200014|200002|140001|18500\d|070014)\b", re.ASCII)
PORTS = {"svn": 3690, "svn+ssh": 22, "http": 80, "https": 443}
TRANSACTION = 12288  # bytes of memory for each path of a transaction
DEAD_AFTER = 600.0  # seconds; a transaction without a write for so long belongs to a killed commit
# Looking for equal contents takes most of the time of a first commit; compression by lz4 is almost free.
TUNING = (("rep-sharing", "enable-rep-sharing = false"), ("deltification", "compression = lz4"))


def quote(path: str) -> str:
    """Quote a path as Subversion's canonical URLs do; FSVS takes no other form."""
    return percent(path.encode("utf-8", "surrogateescape"), safe="/!$&'()*+,-.:=@_~")


@dataclass(frozen=True)
class Subversion:
    """A repository at a URL. work: a private directory for data and logs. runner: how programs are run.

    evidence(): the signs that there was a store before, in words, or "".
    """

    repository: str
    work: Path
    runner: Runner = QUIET
    evidence: Callable[[], str] = str

    def __post_init__(self) -> None:
        self._local()  # refuses what is no URL

    def _svn(self, argv: Sequence[str]) -> Output:
        """Run a Subversion client. NotFoundError for a missing path, AvsError (DamageError) that names the store otherwise."""
        output = self.runner.capture([argv[0], "--non-interactive", *argv[1:]], check=False)
        if output.code:
            lines = [line for line in output.stderr.splitlines() if line.strip()]
            if self._absent() or NO_PATH.search(output.stderr):
                self._need()
            if NO_PATH.search(output.stderr):
                raise NotFoundError(f"not in the store {self.repository}", lines[-3:])
            raise self._unusable(output.stderr or f"{argv[0]} {command.describe(output.code)}")
        return output

    def _unusable(self, stderr: str) -> AvsError:
        if NO_RIGHT.search(stderr) and self._local() and os.geteuid() != 0:
            return self._forbidden()
        lines = [line for line in stderr.splitlines() if line.strip()]
        why = "" if self._local() else refusals.meaning(stderr, self._base(), self._kept)
        kind = DamageError if CORRUPT.search(stderr) and not why else AvsError
        return kind(f"the store {self.repository} cannot be used:{why and f' {why}'}", lines[-5:])

    def _kept(self) -> str:
        """The user whose password Subversion keeps for this server; "" where it keeps none."""
        parts = urlsplit(self.repository)
        server = f"{parts.scheme}://{parts.hostname}:{parts.port or PORTS[parts.scheme]}"
        output = self.runner.capture(["svn", "--non-interactive", "auth", "svn.simple", server], check=False)
        found = refusals.USERNAME.search(output.text)
        return found.group(1) if found else ""

    def _forbidden(self) -> AvsError:
        return AvsError(
            f"the store {self.repository} is not open to {login_name()}: as a rule only root may use it; use sudo"
        )

    def _local(self) -> Optional[Path]:
        """The directory of a file:// repository, or None for one on a server."""
        shown = PASSWORD.sub(r"\1:***@", masking.text(self.repository))
        if shown != self.repository:
            raise AvsError(
                f"the store {shown} has a password in its URL, where every user of this machine sees it; leave it out, and have Subversion "
                f"keep it: type `svn info {shown.replace(':***@', '@').replace('://@', '://')}` once, as root, and answer"
            )
        try:
            parts = urlsplit(self.repository)
        except ValueError:  # brackets that hold no address
            parts = urlsplit("")
        known = parts.scheme in ("file", "svn", "svn+ssh", "http", "https") and "://" in self.repository
        elsewhere = parts.scheme == "file" and parts.netloc not in ("", "localhost")
        if not known or elsewhere or not parts.path.strip("/"):
            raise AvsError(
                f"the store {self.repository!r} is no URL of a Subversion repository; one is file:///DIR, svn://HOST/PATH or https://HOST/PATH. "
                "One of OSTree is ostree:/DIR, or, to be read, ostree:https://HOST/PATH"
            )
        if parts.scheme != "file":
            return None
        return Path(unquote(parts.path))

    def _base(self) -> str:
        """The URL of the repository in Subversion's own form."""
        head, slashes, rest = self.repository.rstrip("/").partition("://")
        host, slash, path = rest.partition("/")
        return head + slashes + host + slash + quote(unquote(path))

    def _absent(self) -> bool:
        """Whether a file:// repository does not exist or is an empty directory, as the mount point of its disk is."""
        path = self._local()
        try:
            return path is not None and (not path.exists() or (path.is_dir() and not any(path.iterdir())))
        except PermissionError:
            raise self._forbidden() from None

    def identity(self) -> str:
        path = self._local()
        if self._absent():
            return ""
        if path is not None:
            with suppress(OSError, UnicodeDecodeError, IndexError):
                return (path / "db/uuid").read_text(encoding="ascii").split()[0]
        output = self.runner.capture(["svn", "--non-interactive", "info", "--xml", f"{self._base()}@HEAD"], check=False)
        if output.code and not NO_PATH.search(output.stderr):
            raise self._unusable(output.stderr)
        return "" if output.code else ElementTree.fromstring(output.stdout).findtext(".//uuid", "")

    def _need(self) -> None:
        """Raise NoStoreError where there is no store, so that a missing one is not taken for an empty one."""
        if not self.identity():
            raise missing(self.repository, self._local(), self.evidence())

    def _xml(self, argv: Sequence[str]) -> Optional[ElementTree.Element]:
        """The XML that svn answers; None where the path does not exist."""
        try:
            return ElementTree.fromstring(self._svn(argv).stdout)
        except NotFoundError:
            return None

    def _listings(self, targets: Sequence[str]) -> ElementTree.Element:
        """What `svn ls --xml` says of several directories in their order: nothing of one that does not exist."""
        output = self.runner.capture(["svn", "--non-interactive", "ls", "--xml", *targets], check=False)
        if output.code:
            self._need()
        # E200009 only says that some targets do not exist.
        if output.code and set(ERRORS.findall(output.stderr)) != {"E200009"}:
            raise self._unusable(output.stderr)
        return ElementTree.fromstring(output.stdout)

    def _log(self, target: str, *options: str) -> list[ElementTree.Element]:
        root = self._xml(["svn", "log", "--xml", *options, target])
        return [] if root is None else list(root.iter("logentry"))

    def _number(self, target: str) -> int:
        """The revision that the store is at."""
        entry = ElementTree.fromstring(self._svn(["svn", "info", "--xml", target]).stdout).find("entry")
        return int(entry.get("revision", "0")) if entry is not None else 0

    def _having(self, target: str, name: str) -> tuple[int, list[str]]:
        """The revision that the store is at, and which URLs of a target, with all below it, have a property then."""
        number = self._number(target)
        fixed = f"{target.rpartition('@')[0]}@{number}"
        found = ElementTree.fromstring(self._svn(["svn", "propget", "-R", "--xml", name, fixed]).stdout)
        return number, [item.get("path", "") for item in found.iter("target")]

    def _scratch(self) -> AbstractContextManager[Path]:
        """A private directory for one use."""
        return own_directory(self.work, "")

    def _mucc(self, lines: Sequence[str], options: Sequence[str], author: str, message: str) -> int:
        """Run one svnmucc transaction; returns its revision. lines: its words, one a line."""
        with self._scratch() as scratch:
            arguments = scratch / "arguments"
            arguments.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            said = self._svn(["svnmucc", *self._as(author), *options, "-m", message, "-X", str(arguments)]).text
        found = re.search(r"r(\d+) committed", said)
        if found is None:
            raise AvsError(f"svnmucc ended well and says nothing of a revision in {self.repository}", said.splitlines())
        return int(found.group(1))

    def _as(self, author: str) -> list[str]:
        """Options that name the author to a file:// repository; a server takes the author from its login."""
        return ["--username", author] if author and self._local() else []

    def _create(self, path: Path) -> None:
        """Make the repository, of which nobody sees half."""
        command.need("svnadmin")
        try:
            with made_whole(path, "format") as temporary:
                self.runner.capture(["svnadmin", "create", str(temporary)])
                conf = temporary / "db/fsfs.conf"
                text = conf.read_text(encoding="utf-8")
                for section, setting in TUNING:
                    text = text.replace(f"[{section}]\n", f"[{section}]\n{setting}\n", 1)
                conf.write_text(text, encoding="utf-8")
        except FileExistsError as err:
            raise AvsError(f"cannot make the store {self.repository}: {err.filename}: Not a directory") from None
        except OSError as err:
            raise AvsError(f"cannot make the store {self.repository}: {err.filename or path}: {err.strerror}") from None
        except CommandError as err:
            raise err.prefixed(f"cannot make the store {self.repository}: ") from None

    @contextmanager
    def _transaction(self, paths: int) -> Iterator[None]:
        """Keep the transaction files of a file:// repository, apart from the contents, in memory for the block.

        Subversion writes two small files for each path; on disk they take longer than all the rest of a first commit.
        """
        path = self._local()
        self._remove_dead_transactions()
        with mounts.in_memory(path / "db/transactions", paths * TRANSACTION) if path else nullcontext():
            yield

    def _remove_dead_transactions(self) -> None:
        """Remove the transactions that killed commits have left in a file:// repository."""
        path = self._local()
        if path is None or not (path / "db/transactions").is_dir():
            return
        transactions, contents = path / "db/transactions", path / "db/txn-protorevs"
        names = {entry.stem for directory in (transactions, contents) for entry in directory.iterdir()}
        for name in names:
            written = [
                transactions / f"{name}.txn",
                *(contents / f"{name}{suffix}" for suffix in (".rev", ".rev-lock")),
            ]
            newest = max((item.stat().st_mtime for item in written if item.exists()), default=0)
            if time.time() - newest <= DEAD_AFTER:
                continue
            if written[0].exists():
                self.runner.capture(["svnadmin", "rmtxns", str(path), name], check=False)
            for item in written[1:]:
                item.unlink(missing_ok=True)


@contextmanager
def open_files() -> Iterator[int]:
    """Raise the limit of open files to the most that the system allows for the block; yields it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
