"""What the command line asks for: each option once, with its flags, its help, and the modes that take it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """flags: how it is given, the first one in messages. value: what its value is called; empty for a switch.

    modes: those that take it; empty for all. path: its value names files, and so need not be UTF-8.
    """

    flags: tuple[str, ...]
    value: str = ""
    help: str = ""
    modes: tuple[str, ...] = ()
    path: bool = False

    @property
    def words(self) -> str:
        """The option as a usage has it: `-p PROFILE`, `-V|--verbose`."""
        return f"{'|'.join(self.flags)} {self.value}".rstrip()


def _option(words: str, help: str, modes: str = "", path: bool = False) -> Any:
    """A field that is an option. words: its usage. modes: names parted by spaces."""
    flags, _, value = words.partition(" ")
    found = Option(tuple(flags.split("|")), value, help, modes=tuple(modes.split()), path=path)
    return dataclasses.field(default="" if value else False, metadata={"option": found})


@dataclass(frozen=True)
class Request:
    """The command line; empty where not given. An option is added here, in the order of the usage, and nowhere else.

    A mode whose words for it are others has those in its MODE.
    """

    image: str = ""
    mode: str = _option("-c MODE", "what to do")
    tag: str = _option("-t TAG", "the tag", "tag show pack rollback verify diff")
    revision: str = _option("-r REV", "the revision (default: the newest)", "tag show diff")
    message: str = _option("-m MESSAGE", "why, for the history", "create tag rollback")
    user: str = _option("-u USER", "who does it (default: who is logged in)", "create tag pack rollback")
    resume: bool = _option("-b", "resume a build that failed: repeat only what is not done, or changed", "create steps")
    source: str = _option(
        "--from DIR",
        "take an existing tree, laid out like a rootimgdir, instead of installing packages",
        "create steps",
        True,
    )
    base: bool = _option("-n", "base image only (no add-ons)", "create steps")
    finish: bool = _option("-f", "tag and pack it when done", "create")
    masquerade: str = _option("-x IMAGE", "serve it as another osimage (test nodes)", "create pack")
    method: str = _option("--method METHOD", "auto, cpio, tar or squashfs", "create pack")
    compress: str = _option("--compress NAME", "auto, gzip, pigz, zstd or xz", "create pack")
    force: bool = _option("--force", "pack it again though it is served already", "pack")
    nodeset: bool = _option("--nodeset", "run the nodeset that is due", "create pack rollback")
    define: bool = _option(
        "--define", "put into the xCAT definition what its name says, where that is missing", "create"
    )
    new_store: bool = _option(
        "--new-store", "begin a new store, or take another one, where there was one before", "create"
    )
    live: bool = _option("--live", "ask the nodes, by xdsh, what they run", "status")
    fast: bool = _option("--fast", "compare names and sizes only, and no checksums", "rollback")
    deep: bool = _option("--deep", "verify the whole store as well", "verify")
    keep: str = _option("--keep N", "keep the newest N of each kind", "prune")
    older: str = _option("--older DAYS", "remove only what is older than DAYS", "prune")
    tags: str = _option("--tags PATTERN", "remove the tags that match PATTERN as well (OSTree)", "prune")
    yes: str = _option("--yes NAMES", "the names of these tags, parted by commas", "prune")
    dry_run: bool = _option("--dry-run", "only say what would be removed, and how much it would free", "prune")
    packages: bool = _option("--packages", "only the packages", "diff")
    files: bool = _option("--files", "only the files, all of them", "diff")
    match: str = _option("--match PATTERN", "only the files that match PATTERN, all of them", "diff", True)
    content: str = _option(
        "--content PATH", "the contents of one file: /etc/passwd, kernel, build_info/report", "diff", True
    )
    profile: str = _option("-p PROFILE", "the profile, instead of IMAGE")
    osvers: str = _option("-o OSVERS", "narrow a profile down to an osvers")
    osarch: str = _option("-a ARCH", "narrow a profile down to an architecture")
    store: str = _option("-s URL", "another store")
    json: bool = _option("--json", "answer with one JSON document")
    verbose: bool = _option("-V|--verbose", "say what is done")
    help: bool = _option("-h|--help", "this text; with -c MODE that of the mode")
    version: bool = _option("-v|--version", "the version")


# Field of Request -> its option, in the order of the usage.
OPTIONS: dict[str, Option] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(Request) if "option" in field.metadata
}
