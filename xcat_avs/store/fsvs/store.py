"""FSVS over Subversion, in the layout of avs_image_mgr: netboot/OSVERS/ARCH/PROFILE/{trunk,tags,branches}."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, CommandError, DamageError, NotFoundError
from xcat_avs.store.fsvs import refusals
from xcat_avs.store.fsvs.changes import actions, uploads
from xcat_avs.store.fsvs.fetching import Fetching, failed, fit
from xcat_avs.store.fsvs.reading import AUTHOR, DATE, ORIGINAL, REAL, SIGNATURE
from xcat_avs.store.fsvs.subversion import CORRUPT, EXISTS, NO_PATH, OUT_OF_DATE, open_files, quote
from xcat_avs.store.protocol import MANIFEST, PLAIN, Content, NewTag, Revision, Version
from xcat_avs.system import command, mounts
from xcat_avs.system.descent import link_tree
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import manifest
from xcat_avs.tree.manifest import Manifest
from xcat_avs.tree.restore import restore

ATTEMPTS = 8
COMMITTED = re.compile(r"committed revision\s+(\d+)")
FOLLOWS = "avs:follows"  # property of trunk: the revision that its last one was made from
INCOMING = "branches/.avs-incoming"  # where contents are sent before a commit that has too many files to open at once
SPARE_FILES = 256  # open files that svnmucc needs besides the contents
STATE = 256  # bytes of memory that FSVS's own data take for a path
PIPE = "fsvs:update-pipe"  # a command that FSVS puts the contents of a file through while it writes it
SHOWN = 10  # paths that an error lists


@dataclass(frozen=True)
class FsvsStore(Fetching):
    """The store in a Subversion repository."""

    def prepare(self, image: OsImage, author: str, anew: bool = False) -> None:
        if not self.identity():
            if not anew and self.evidence():
                self._need()
            path = self._local()
            if path is not None:
                self._create(path)
        for attempt in range(ATTEMPTS):
            wanted = [self.url(image) + f"/{name}" for name in ("trunk", "tags", "branches")]
            missing = [] if self._exist(*wanted) else [url for url in wanted if not self._exist(url)]
            if not missing:
                return
            message = f"{author}; Layout for {image.name}"
            try:
                self._svn(["svn", "mkdir", "-q", "--parents", *self._as(author), "-m", message, *missing])
            except AvsError as err:
                # Another create may be making the same directories; then look again.
                if attempt == ATTEMPTS - 1 or not EXISTS.search(str(err)):
                    raise

    def _exist(self, *urls: str) -> bool:
        """Whether all these exist in the repository, which may be an empty one."""
        targets = [f"{url}@HEAD" for url in urls]
        said = self.runner.capture(["svn", "--non-interactive", "info", *targets], check=False)
        if said.code and not NO_PATH.search(said.stderr):
            raise self._unusable(said.stderr)
        return said.code == 0

    def commit(self, image: OsImage, content: Content, author: str, message: str) -> Revision:
        # What FSVS sends by http, Subversion's library refuses ("Closing editor with directories or files open").
        # Of a revision FSVS says author and message alone, which are not all that is said of a copied one.
        http = self.repository.startswith("http")
        whole = content.before is None and content.copied is None and not http
        commit = self._commit_whole if whole else self._commit_changes
        try:
            with self._transaction(len(content.entries)):
                number = commit(image, content, author, message)
        except AvsError as err:
            if OUT_OF_DATE.search(str(err)):
                raise AvsError(f"{image.name}: somebody else has committed to {self.url(image)}/trunk meanwhile, and no revision "
                               "of this build was stored; `avsimage -c create` with -b resumes the build",
                               [err.text, *err.tail]) from None  # fmt: skip
            # FSVS's log is removed with its directory, so the error keeps the tail and not the path.
            err = self._cause(err)
            lost = ", unless only the server's last answer was lost (-b finds out)" if refusals.gone(err.tail) else ""
            raise AvsError(f"{image.name}: the commit failed, nothing was stored{lost}: {err.text}", err.tail) from None
        return self.revision(image, number)

    def _cause(self, err: AvsError) -> AvsError:
        """What keeps a server from answering, which FSVS does not print; the error itself where it answers."""
        if isinstance(err, CommandError) and self._local() is None:
            try:
                self.identity()
            except AvsError as cause:
                return cause
        return err

    def _commit_whole(self, image: OsImage, content: Content, author: str, message: str) -> int:
        """Commit the first revision with FSVS, run in the tree itself. Returns the revision number."""
        with self._fsvs(len(content.entries)) as (env, log), self._without(content) as tree:
            options = ["-o", "empty_commit=no"]
            if self._local():  # a server takes the author from its own login
                options += ["-o", "author=$AVS_AUTHOR"]  # by the environment: FSVS expands a $ in the value
            for words in (["initialize", self.url(image, Version())], ["sync-repos"], [*options, "ci", "-m", message]):
                if "ci" in words and self.head(image) is not None:
                    # FSVS would store what it sees of the difference. What comes in from now on it is told by Subversion.
                    raise AvsError("E160024: trunk was empty when this commit began")
                runner = self.runner.to(log).sized(manifest.size(content.entries, by_name=True))
                runner.run(["fsvs", "-q", *words], cwd=tree, env={**env, "AVS_AUTHOR": author})
            number = COMMITTED.findall(log.read_text(encoding="utf-8", errors="replace"))
        if not number:
            raise AvsError(f"FSVS ended well and says nothing of a revision in {self.repository}")
        return int(number[-1])

    @contextmanager
    def _without(self, content: Content) -> Iterator[Path]:
        """Yield the tree, or a hard-linked copy of it without the paths that FSVS cannot store."""
        if not content.aside:
            yield content.tree
            return
        with own_directory(content.tree.parent, PLAIN) as directory:
            copy = directory / "tree"
            link_tree(str(content.tree), str(copy), content.aside)
            # link_tree does not keep owner, mode and time of directories, which FSVS stores as well.
            found = {path: entry for path, entry in content.entries.items() if entry.type == "dir"}
            restore(str(copy), found, copy)
            yield copy

    def _commit_changes(self, image: OsImage, content: Content, author: str, message: str) -> int:
        """Commit the difference of two manifests, or a first one, as one svnmucc transaction. Returns its number.

        FSVS is not used here: it misses changes (same size and second; owner where root's is stored; mode where 0600
        is), cannot turn a link or device into a file, and reads the whole tree.
        """
        url, before, after = self.url(image), content.before or {}, content.entries
        base = content.base.number if content.base else self._number(self._peg(image, Version()))
        follows = base
        if content.base is None and self._at(image, Version(revision=base)) is not None:
            raise AvsError("E160024: trunk was empty when this commit began")
        with self._scratch() as scratch, open_files() as limit:
            sources = uploads(before, after, content.tree, scratch)
            # svnmucc opens all files that it sends at its start. What is beyond the limit of open files is sent before.
            most = limit - SPARE_FILES
            ahead = {path: f"{url}/{INCOMING}/{number}" for number, path in enumerate(list(sources)[most:])}
            self._remove_incoming(url, author)
            for start in range(0, len(ahead), most):
                words = [] if start else ["mkdir", f"{url}/{INCOMING}"]
                for path in list(ahead)[start : start + most]:
                    words += ["put", sources[path], ahead[path]]
                base = self._mucc(words, [], author, f"{author}; Contents that go ahead of a commit")
            if ahead and self._at(image, Version(revision=base)) != content.base:
                raise AvsError("E160024: trunk was changed while contents went ahead")
            # Subversion refuses this property where anything in trunk is newer than base, changed here or not.
            words = ["propset", FOLLOWS, str(follows), f"{url}/trunk"]
            for word, *more, path in actions(before, after, ahead):
                if word == "put":
                    word, more = ("cp", [str(base), ahead[path]]) if path in ahead else ("put", [sources[path]])
                words += [word, *more, f"{url}/trunk/{quote(path)}"]
            options = ["-r", str(base), *_copied(content.copied)]
            number = self._sent(sources, before)._mucc(words, options, author, message)
            if ahead:
                self._remove_incoming(url, author)
        if number > base + 1 and self._log(f"{url}/trunk@{number}", "-q", "-r", f"{base + 1}:{number - 1}"):
            # Another commit came in while ours was sent, so the manifest does not describe the mixed revision.
            # Without a manifest the next commit checks trunk out.
            self._mucc(["rm", f"{url}/trunk/{MANIFEST}"], [], author, f"{author}; No manifest of a mixed revision")
            raise AvsError(f"E160024: revision {number} holds changes of others as well")
        return number

    def _sent(self, sources: Mapping[str, str], before: Manifest) -> FsvsStore:
        """The same for a program that has these files to read.

        before: what is stored, by path; a local store reads that of them as well, to store the difference.
        """
        total = sum(os.path.getsize(source) for source in sources.values())
        known = sources.keys() & before.keys() if self._local() else ()
        return replace(self, runner=self.runner.sized(total + sum(before[path].size for path in known)))

    def _remove_incoming(self, url: str, author: str) -> None:
        if self._xml(["svn", "info", "--xml", f"{url}/{INCOMING}@HEAD"]) is not None:
            self._mucc(["rm", f"{url}/{INCOMING}"], [], author, f"{author}; Contents that went ahead of a commit")

    def export(self, image: OsImage, version: Version, target: Path, wanted: Optional[Manifest] = None) -> None:
        try:
            if wanted is not None and fit(wanted):
                self._export_contents(image, version, wanted, target)
                return
            with self._fsvs() as (env, log):
                # At one revision: what is in the store may be changed between the look and the export.
                number = self._without_programs(image, version)
                words = ["fsvs", "-q", "export", "-r", str(number), self.url(image, version)]
                self.runner.to(log).run(words, cwd=target, env=env)
        except (CommandError, DamageError) as err:
            cause, damage = self._cause(err), self._damage(image, version)
            raise (DamageError if damage else AvsError)(failed(image, version, cause), [*cause.tail, *damage]) from None

    def _without_programs(self, image: OsImage, version: Version) -> int:
        """The revision of the store at which a version has no property that makes FSVS run a program. Raises AvsError for one."""
        number, paths = self._having(self._peg(image, version), PIPE)
        if paths:
            raise AvsError(
                f"{image.name}: {version} has the property {PIPE}, by which FSVS runs a program as root here:",
                paths[:SHOWN],
            )
        return number

    @contextmanager
    def _fsvs(self, paths: int = 0) -> Iterator[tuple[dict[str, str], Path]]:
        """Environment and log file of FSVS, with its state apart from the host's /etc/fsvs and /var/spool/fsvs.

        paths: how many paths FSVS will note there. It is kept in memory, because FSVS syncs to disk for each.
        """
        command.need("fsvs")
        with self._scratch() as scratch:
            state = scratch / "state"
            state.mkdir()
            with mounts.in_memory(state, paths * STATE):
                for name in ("conf", "waa"):
                    (state / name).mkdir(mode=0o700)
                _settings(state / "conf/svn")
                yield {"FSVS_CONF": str(state / "conf"), "FSVS_WAA": str(state / "waa")}, scratch / "log"

    def tag(self, image: OsImage, new: NewTag) -> None:
        target = self.url(image, Version(tag=new.name))
        said = {REAL: new.real, SIGNATURE: new.signature, DATE: new.date}
        said.update({AUTHOR: new.author, ORIGINAL: str(new.original or "")} if new.date else {})
        options = _properties(said)
        # svnmucc fails where the tag exists; `svn cp` would copy trunk into it.
        try:
            words = ["cp", str(new.source), self.url(image, Version()), target]
            self._mucc(words, options, new.author, new.message)
        except AvsError as err:
            if EXISTS.search(str(err)) or new.name in {tag.name for tag in self.tags(image)}:
                raise AvsError(
                    f"{image.name}: tag {new.name} exists already, and tags are never changed; take another name"
                ) from None
            raise

    def forget(self, image: OsImage, versions: Sequence[Version], dry_run: bool = False) -> Optional[int]:
        return None

    def cure(self, image: OsImage) -> str:
        return f"remove it from the newest revision with `svn rm -m damaged {self.url(image, Version())}`"

    def check(self) -> str:
        path = self._local()
        if path is None:
            raise NotFoundError(f"the store {self.repository} is on a server: `svnadmin verify` has to be run there")
        self._need()
        said = self.runner.capture(["svnadmin", "verify", "-q", "--keep-going", str(path)], check=False)
        if said.code:
            lines = [line for line in said.stderr.splitlines() if line.strip()]
            damaged = "the store is damaged: " if CORRUPT.search(said.stderr) else ""
            what = f"{damaged}svnadmin verify {path} {command.describe(said.code)}"
            raise (DamageError if damaged else AvsError)(what, lines[-command.TAIL_LINES :])
        return f"svnadmin verify {path}"


def _properties(values: Mapping[str, str]) -> list[str]:
    """Options that give a new revision properties; those without a value are left out, but for an author, as there may be none."""
    return [
        word
        for name, value in values.items()
        if value or name == AUTHOR
        for word in ("--with-revprop", f"{name}={value}")
    ]


def _copied(revision: Optional[Revision]) -> list[str]:
    """What is said of the copy of a revision of another store; nothing of any other."""
    if revision is None:
        return []
    facts = {AUTHOR: revision.author, DATE: revision.date, REAL: revision.real, ORIGINAL: str(revision.first)}
    return _properties(facts)


def _settings(directory: Path) -> None:
    """Give FSVS Subversion's settings and logins of this user, with contents by http in one answer, one after the other.

    As Subversion asks for them otherwise, many at a time, FSVS takes one file for another.
    """
    directory.mkdir()
    for name in ("config", "servers"):
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{refusals.directory()}/{name}", directory / name)
    with open(directory / "servers", "a", encoding="ascii") as stream:
        stream.write("\n[global]\nhttp-bulk-updates = yes\n")
    (directory / "auth").symlink_to(f"{refusals.directory()}/auth")
