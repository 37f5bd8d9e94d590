"""What the command line asks for: each option once, with its flags, its help, and the modes that take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """flags: how it is given, the first one in messages. value: what its value is called; empty for a switch.

    modes: those that take it; empty for all. path: its value names files, and so need not be UTF-8.
    bare: its value where it is given without one; empty where it needs one.
    ignored: avs_image_mgr took it with every mode, so where it means nothing it is ignored with a word, and not refused.
    """

    flags: tuple[str, ...]
    value: str = ""
    help: str = ""
    modes: tuple[str, ...] = ()
    path: bool = False
    bare: str = ""
    ignored: bool = False

    @property
    def words(self) -> str:
        """The option as a usage has it: `-p|--profile PROFILE`."""
        return f"{'|'.join(self.flags)} {self.value}".rstrip()

    @property
    def short(self) -> str:
        """The option as a command line has it: `-p PROFILE`."""
        return f"{self.flags[0]} {self.value}".rstrip()


def _option(words: str, help: str, modes: str = "", path: bool = False, ignored: bool = False, bare: str = "") -> Any:
    """A field that is an option. words: its usage. modes: names parted by spaces."""
    flags, _, value = words.partition(" ")
    found = Option(tuple(flags.split("|")), value, help, tuple(modes.split()), path=path, ignored=ignored, bare=bare)
    return dataclasses.field(default="" if value else False, metadata={"option": found})


@dataclass(frozen=True)
class Request:
    """The command line; empty where not given. An option is added here, in the order of the usage, and nowhere else.

    A mode whose words for it are others has those in its MODE.
    """

    image: str = ""
    argument: str = ""  # the word after IMAGE, in the modes that take one: PATTERN, PATH, DIR
    command: tuple[str, ...] = ()  # the words after `--`, in the modes that take a command
    mode: str = _option("-c|--mode MODE", "what to do")
    tag: str = _option("-t|--tag TAG", "the tag", "tag show pack run boot rollback verify diff files cat checkout logs")
    revision: str = _option(
        "-r|--revision REV", "the revision (default: the newest)", "tag show run diff files cat checkout logs"
    )
    message: str = _option("-m|--message MESSAGE", "why, for the history", "create tag rollback")
    sign: str = _option(
        "--sign [KEY]", "sign the tag (default: with [sign] key, or else gpg's own)", "create tag", bare="default"
    )
    user: str = _option(
        "-u|--user USER", "who does it (default: who is logged in)", "create tag pack rollback boot", ignored=True
    )
    resume: bool = _option(
        "-b|--resume", "resume a build that failed: repeat only what is not done, or changed", "create steps"
    )
    source: str = _option(
        "--from DIR",
        "take an existing tree, laid out like a rootimgdir, instead of installing packages",
        "create steps",
        True,
    )
    base: bool = _option("-n|--base-only", "base image only (no add-ons)", "create steps")
    finish: bool = _option("-f|--finish", "tag and pack it when done", "create")
    masquerade: str = _option("-x|--masquerade IMAGE", "serve it as another osimage (test nodes)", "create pack boot")
    method: str = _option("--method METHOD", "auto, cpio, tar or squashfs", "create pack boot")
    compress: str = _option("--compress NAME", "auto, gzip, pigz, zstd or xz", "create pack boot")
    force: bool = _option("--force", "pack it again though it is served already", "pack")
    nodeset: bool = _option("--nodeset", "run the nodeset that is due", "create pack rollback")
    define: bool = _option(
        "--define", "put into the xCAT definition what its name says, where that is missing", "create"
    )
    to: str = _option("--to URL", "the store to copy to", "copy")
    new_store: bool = _option(
        "--new-store", "begin a new store, or take another one, where there was one before", "create copy"
    )
    live: bool = _option("--live", "ask the nodes, by xdsh, what they run", "status")
    fast: bool = _option("--fast", "compare names and sizes only, and no checksums", "rollback")
    deep: bool = _option("--deep", "verify the whole store as well", "verify")
    reproduce: bool = _option("--reproduce", "pack the tag again, and compare with what is packed", "verify")
    keep: str = _option("--keep N", "keep the newest N of each kind", "prune")
    older: str = _option("--older DAYS", "remove only what is older than DAYS", "prune")
    tags: str = _option("--tags PATTERN", "remove the tags that match PATTERN as well (OSTree)", "prune")
    yes: str = _option("--yes NAMES", "the names of these tags, parted by commas", "prune")
    dry_run: bool = _option("--dry-run", "only say what would be removed, and how much it would free", "prune copy")
    packages: bool = _option("--packages", "only the packages", "diff")
    files: bool = _option("--files", "only the files, all of them", "diff")
    match: str = _option("--match PATTERN", "only the files that match PATTERN, all of them", "diff", True)
    content: str = _option(
        "--content PATH", "the contents of one file: /etc/passwd, kernel, build_info/report", "diff", True
    )
    profile: str = _option("-p|--profile PROFILE", "the profile, instead of IMAGE")
    osvers: str = _option("-o|--osvers OSVERS", "narrow a profile down to an osvers")
    osarch: str = _option("-a|--arch ARCH", "narrow a profile down to an architecture")
    store: str = _option("-s|--store URL", "another store")
    html: str = _option("--html FILE", "write it into FILE as a page to look at, with charts", "show", True)
    wide: bool = _option("--wide", "tables in full: all columns, and nothing folded or shortened")
    json: bool = _option("--json", "answer with one JSON document")
    verbose: bool = _option("-V|--verbose", "say what is done")
    help: bool = _option("-h|--help", "this text; with -c MODE that of the mode")
    version: bool = _option("-v|--version", "the version")


# Field of Request -> its option, in the order of the usage.
OPTIONS: dict[str, Option] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(Request) if "option" in field.metadata
}
# Flags that the next word is the value of.
VALUED = {flag for option in OPTIONS.values() if option.value for flag in option.flags}


def grouped(argv: Sequence[str]) -> list[list[str]]:
    """The words of a command line, each option with the word that is its value."""
    words, found = list(argv), list[list[str]]()
    while words:
        end = len(words) if words[0] == "--" else 2 if words[0] in VALUED else 1
        found.append(words[:end])
        del words[:end]
    return found


def parted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line before `--`, and those after it."""
    before: list[str] = []
    for group in grouped(argv):
        if group[0] == "--":
            return before, group[1:]
        before += group
    return before, []


def current(argv: Sequence[str]) -> tuple[list[str], str]:
    """The command line with `--match` in place of a PATTERN after `--files`, which was how to say it.

    Returns that PATTERN as well: where no IMAGE is given, it was no PATTERN but the IMAGE.
    """
    found: list[str] = []
    pattern = ""
    after = False
    for group in grouped(argv):
        flag, equals, value = group[0].partition("=")
        if flag == "--files" and equals:
            found += ["--files", f"--match={value}"]
        elif after and not group[0].startswith("-"):
            pattern = group[0]
            found += ["--match", pattern]
        else:
            found += group
        after = group == ["--files"]
    return found, pattern


def placed(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed command line with the words that belong to no option in their places: IMAGE, unless -p says it, and what follows."""
    words = list(parsed["image"] or [])
    images = 0 if parsed["profile"] and len(words) == 1 else 1
    return {**parsed, "image": words[:images], "argument": words[images:]}


def completed(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with its value for each option that stands there without one: nothing follows, or an option."""
    bare = {flag: f"{flag}={option.bare}" for option in OPTIONS.values() if option.bare for flag in option.flags}
    following = [*argv[1:], "-"]
    return [bare.get(word, word) if after.startswith("-") else word for word, after in zip(argv, following)]
