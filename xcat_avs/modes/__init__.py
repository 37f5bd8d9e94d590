"""The modes of avsimage, one module each: MODE says what is special in it, its run() does it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from xcat_avs import __version__
from xcat_avs.definitions.osimage import ARCHES
from xcat_avs.errors import AvsError, SetupError, UsageError, nearest
from xcat_avs.report import Report
from xcat_avs.request import OPTIONS, Option, Request
from xcat_avs.site import Site
from xcat_avs.system.progress import Progress

CHECK = "check"  # the mode that looks at the installation


@dataclass(frozen=True)
class Mode:
    """words: field of Request -> its help in this mode, and values: how its value is called, where that is special.

    needs: the fields that must be given.
    private: builds or mounts, so it runs as root in a private namespace.
    open: what makes the Site that run is given.
    """

    name: str
    summary: str
    run: Callable[[Request, Site], Report]
    words: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    alias: str = ""
    private: bool = False
    image: bool = True  # whether IMAGE must be given
    values: Mapping[str, str] = field(default_factory=dict)
    argument: str = ""  # how the word after IMAGE is called, in brackets where it may be left out; "" for none
    open: Callable[[Request, Progress], Site] = Site.open

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
    from xcat_avs.modes import (
        cat,
        check,
        checkout,
        create,
        diff,
        env,
        files,
        images,
        journal,
        list_tags,
        log,
        logs,
        pack,
        rollback,
        shell,
        show,
        status,
        steps,
        tag,
        verify,
    )

    modules = (check, create, shell, tag, list_tags, pack, rollback, status, show, log, logs, diff, verify, steps, env)
    looking = (files, cat, checkout, journal, images)
    return {module.MODE.name: module.MODE for module in (*modules, *looking)}


def usage(mode: Optional[Mode] = None) -> str:
    """The usage of the command, or of one mode."""
    every, width = table(), 16
    if mode is None:
        longest = max(len(name) for name in every)
        lines = [
            "Usage:",
            "  avsimage -c MODE IMAGE [options]",
            "  avsimage MODE IMAGE [options]",
            "  avsimage -c MODE -h",
            "  avsimage [-h|--help|-v|--version]",
            "",
        ]
        lines += ["Modes:", *(f"  {name.ljust(longest)}  {item.summary}" for name, item in every.items()), ""]
    else:
        takes = mode.takes
        needs = [takes[name].short for name in mode.needs]
        words = ["avsimage -c", mode.name, "IMAGE" if mode.image else "[IMAGE]", mode.argument, *needs, "[options]"]
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

All modes: avsimage -h. The options of one: avsimage MODE -h. What is missing here: avsimage check.
The manual: man avsimage; how an image is built: man avs-procedures.
"""


def named(name: str) -> Optional[Mode]:
    """The mode of that name or old name."""
    return next((mode for mode in table().values() if name and name in (mode.name, mode.alias)), None)


def find(name: str) -> Mode:
    """The same. Raises UsageError with the nearest."""
    mode = named(name)
    if mode is None:
        raise UsageError(f"unknown mode {name!r}{nearest(name, table())}")
    return mode


def classic(osvers: Sequence[str], arches: Sequence[str]) -> tuple[list[str], list[str]]:
    """What -o and -a are given, as avs_image_mgr's README had it: an architecture after -o is that of -a."""
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
