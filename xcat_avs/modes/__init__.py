"""The modes of avsimage, one module each: MODE says what is special in it, its run() does it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Callable, Optional

from xcat_avs import __version__
from xcat_avs.errors import AvsError, SetupError, UsageError, nearest
from xcat_avs.report import Report
from xcat_avs.request import OPTIONS, Option, Request

if TYPE_CHECKING:
    from xcat_avs.site import Site
    from xcat_avs.system.progress import Progress

# Each mode, whose module has its name, and what it does; in the order of the usage.
MODES = {
    "check": "whether all is there that the other modes need, and the command that fixes what is not",
    "create": "build an image by its procedures, report, commit",
    "shell": "a shell in the build that failed, with the environment of the step that did",
    "tag": "make an immutable tag of the newest, or of any, revision",
    "list-tags": "list the tags: date, author, revision, what is served where",
    "pack": "check a tag out, verify it, pack it, and serve it in one step",
    "run": "a command, or a shell, in a throw-away copy of a tag or revision",
    "boot": "boot what nodes would boot of a tag in a virtual machine, and say whether it came up",
    "rollback": "serve the set that was served before again, in seconds",
    "status": "show what every osimage serves, and whether nodeset is due",
    "show": "show one tag or revision: who, when, why, from what, its report",
    "log": "list the revisions: date, author, packages, size, tags, message",
    "logs": "what the steps of a build said: the last one, those that failed before it, or a stored one",
    "diff": "show what changed between two tags or revisions",
    "verify": "compare a tag, and what is published of it, with its manifest",
    "prune": "remove packed sets, the build, its logs, the checkout and revisions that nothing uses",
    "copy": "copy all revisions and tags of an image into another store, each proven by its manifest",
    "steps": "list the procedures and add-ons that a create would run",
    "env": "print the image's settings as `export NAME=value` lines",
    "files": "list the paths of a tag or revision: type, mode, owner, size",
    "cat": "print one file of a tag or revision: /etc/passwd, kernel, build_info/report",
    "checkout": "check a tag or revision out into an empty directory, proven by its manifest",
    "journal": "list who had what served, from when to when, and why",
    "images": "list every osimage: newest revision, tags, sizes, what is served, what runs",
}
ALIASES = {"list_tags": "list-tags"}
CHECK = "check"  # the mode that looks at the installation


@dataclass(frozen=True)
class Mode:
    """words: field of Request -> its help in this mode, and values: how its value is called, where that is special.

    needs: the fields that must be given.
    private: builds or mounts, so it runs as root in a private namespace.
    as_it_is: it is given as much of the installation as can be read.
    """

    name: str
    run: Callable[[Request, Site], Report]
    words: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    private: bool = False
    image: bool = True  # whether IMAGE must be given
    values: Mapping[str, str] = field(default_factory=dict)
    argument: str = ""  # how the word after IMAGE is called, in brackets where it may be left out; "" for none
    command: str = ""  # how a command that follows `--` is called; "" where none does
    as_it_is: bool = False

    @property
    def summary(self) -> str:
        """What it does."""
        return MODES[self.name]

    def open(self, request: Request, progress: Progress) -> Site:
        """The installation that run is given. What that needs is most of what there is, and is imported now."""
        from xcat_avs.site import Site

        return Site.as_it_is(request, progress) if self.as_it_is else Site.open(request, progress)

    @property
    def takes(self) -> dict[str, Option]:
        """Field of Request -> its option, in the words of this mode."""
        return {
            name: replace(option, help=self.words.get(name, option.help), value=self.values.get(name, option.value))
            for name, option in OPTIONS.items()
            if self.name in option.modes
        }


def table() -> dict[str, Mode]:
    """All modes by name, in the order of the usage."""
    return {name: _load(name) for name in MODES}


def _load(name: str) -> Mode:
    """A mode, whose module is imported now: what it needs is most of what there is."""
    mode: Mode = import_module(f"{__name__}.{name.replace('-', '_')}").MODE
    return mode


def usage(mode: Optional[Mode] = None) -> str:
    """The usage of the command, or of one mode."""
    width = 16
    if mode is None:
        longest = max(map(len, MODES))
        lines = [
            "Usage:",
            "  avsimage -c MODE IMAGE [options]",
            "  avsimage MODE IMAGE [options]",
            "  avsimage -c MODE -h",
            "  avsimage [-h|--help|-v|--version]",
            "",
        ]
        lines += ["Modes:", *(f"  {name.ljust(longest)}  {summary}" for name, summary in MODES.items()), ""]
    else:
        takes = mode.takes
        needs = [takes[name].short for name in mode.needs]
        words = [
            "avsimage -c",
            mode.name,
            "IMAGE" if mode.image else "[IMAGE]",
            mode.argument,
            *needs,
            "[options]",
            mode.command,
        ]
        lines = ["Usage:", f"  {' '.join(filter(None, words))}", "", f"  {mode.summary}", ""]
        if takes:
            width = max(width, *(len(option.words) for option in takes.values()))
            lines += [f"Options of {mode.name}:", *(_help(option, width) for option in takes.values()), ""]
    lines += ["IMAGE is a profile (example.prod) or the full name of an osimage.", "", "Options of all modes:"]
    lines += [_help(option, width) for name, option in OPTIONS.items() if not option.modes and name != "mode"]
    return "\n".join(lines) + "\n"


def _help(option: Option, width: int) -> str:
    return f"  {option.words:<{width}}  {option.help}"


def look_at_all(err: AvsError, mode: Optional[Mode], request: Request) -> str:
    """The command that says all that is missing, where an error says that something of the installation is; else ""."""
    if not isinstance(err, SetupError) or (mode and mode.name == CHECK):
        return ""
    image = request.image or request.profile
    return shlex.join(["avsimage", "-c", CHECK, *([image] if image else [])])


def first_words() -> str:
    """What `avsimage` alone says."""
    return f"""\
avsimage {__version__}: build, version and serve the netboot images of an xCAT cluster

  avsimage create IMAGE -m MESSAGE   build an image, and store it
  avsimage tag IMAGE -t TAG          give what was built a name that stays
  avsimage pack IMAGE -t TAG         have nodes boot it from now on
  avsimage rollback IMAGE            have them boot what was served before
  avsimage status                    what is served, and what nodes will boot

All modes: avsimage -h. Options of one: avsimage MODE -h. Manual: man avsimage.
What is missing: avsimage check. How an image is built: man avs-procedures.
"""


def named(name: str) -> Optional[Mode]:
    """The mode of that name or old name."""
    name = ALIASES.get(name, name)
    return _load(name) if name in MODES else None


def find(name: str) -> Mode:
    """The same. Raises UsageError with the nearest."""
    mode = named(name)
    if mode is None:
        raise UsageError(f"unknown mode {name!r}{nearest(name, MODES)}")
    return mode


def classic(osvers: Sequence[str], arches: Sequence[str]) -> tuple[list[str], list[str]]:
    """What -o and -a are given, as avs_image_mgr's README had it: an architecture after -o is that of -a."""
    from xcat_avs.definitions.osimage import ARCHES

    found = [word for word in osvers if re.fullmatch(ARCHES, word)]
    return [word for word in osvers if word not in found], list(dict.fromkeys([*arches, *found])) if found else [
        *arches
    ]


def refuse_unfit(request: Request, mode: Mode) -> list[str]:
    """What a mode needs is there, what it does not take is not. Raises UsageError.

    Returns what is to be said of options that mean nothing here, and are ignored.
    """
    ignored = []
    for name, option in OPTIONS.items():
        if option.modes and getattr(request, name) and mode.name not in option.modes:
            if not option.ignored:
                raise UsageError(f"mode {mode.name} takes no {option.flags[0]}")
            ignored.append(f"{option.short} means nothing to mode {mode.name}, and is ignored")
    for name in mode.needs:
        if not getattr(request, name):
            raise UsageError(f"mode {mode.name} needs {mode.takes[name].short}")
    if request.image and request.profile:
        raise UsageError(f"IMAGE is given twice: {request.image!r}, and -p {request.profile!r}")
    if mode.image and not (request.image or request.profile):
        raise UsageError(
            f"mode {mode.name} needs the IMAGE, a profile such as example.prod or the full name of an osimage"
        )
    if request.argument and not mode.argument:
        if request.profile and not request.image:
            raise UsageError(f"IMAGE is given twice: {request.argument!r}, and -p {request.profile!r}")
        raise UsageError(unexpected(request.argument))
    if mode.argument and mode.argument[0] != "[" and not request.argument:
        raise UsageError(f"mode {mode.name} needs {mode.argument}, after the IMAGE")
    return ignored


def unexpected(*words: str) -> str:
    """What to say of words too many."""
    which = " or ".join(map(repr, words))
    return f"unexpected argument {which}; a message of several words, or a pattern, is quoted: -m 'MESSAGE'"
