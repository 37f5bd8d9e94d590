"""The modes of avsimage, one module each: MODE says what is special in it, its run() does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from xcat_avs.errors import UsageError, nearest
from xcat_avs.report import Report
from xcat_avs.request import OPTIONS, Option, Request
from xcat_avs.site import Site


@dataclass(frozen=True)
class Mode:
    """words: field of Request -> its help in this mode, and values: how its value is called, where that is special.

    needs: the fields that must be given.
    private: builds or mounts, so it runs as root in a private namespace.
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
        create,
        diff,
        env,
        list_tags,
        log,
        pack,
        prune,
        rollback,
        show,
        status,
        steps,
        tag,
        verify,
    )

    modules = (create, tag, list_tags, pack, rollback, status, show, log, diff, verify, prune, steps, env)
    return {module.MODE.name: module.MODE for module in modules}


def usage(mode: Optional[Mode] = None) -> str:
    """The usage of the command, or of one mode."""
    every, width = table(), 16
    if mode is None:
        longest = max(len(name) for name in every)
        lines = [
            "Usage:",
            "  avsimage -c MODE IMAGE [options]",
            "  avsimage -c MODE -h",
            "  avsimage [-h|--help|-v|--version]",
            "",
        ]
        lines += ["Modes:", *(f"  {name.ljust(longest)}  {item.summary}" for name, item in every.items()), ""]
    else:
        takes = mode.takes
        needs = [takes[name].words for name in mode.needs]
        words = ["avsimage -c", mode.name, "IMAGE" if mode.image else "[IMAGE]", *needs, "[options]"]
        lines = ["Usage:", f"  {' '.join(words)}", "", f"  {mode.summary}", ""]
        if takes:
            width = max(width, *(len(option.words) for option in takes.values()))
            lines += [f"Options of {mode.name}:", *(_help(option, width) for option in takes.values()), ""]
    lines += ["IMAGE is a profile (example.prod) or the full name of an osimage.", "", "Options of all modes:"]
    lines += [_help(option, width) for name, option in OPTIONS.items() if not option.modes and name != "mode"]
    return "\n".join(lines) + "\n"


def _help(option: Option, width: int) -> str:
    return f"  {option.words:<{width}}  {option.help}"


def find(name: str) -> Mode:
    """The mode of that name or old name. Raises UsageError with the nearest."""
    every = table()
    for mode in every.values():
        if name in (mode.name, mode.alias):
            return mode
    raise UsageError(f"unknown mode {name!r}{nearest(name, every)}; there are {', '.join(every)}")


def check(request: Request, mode: Mode) -> None:
    """What a mode needs is there, what it does not take is not. Raises UsageError."""
    for name, option in OPTIONS.items():
        if option.modes and getattr(request, name) and mode.name not in option.modes:
            raise UsageError(f"mode {mode.name} takes no {option.flags[0]}")
    for name in mode.needs:
        if not getattr(request, name):
            raise UsageError(f"mode {mode.name} needs {mode.takes[name].words}")
    if request.image and request.profile:
        raise UsageError(f"IMAGE is given twice: {request.image!r}, and -p {request.profile!r}")
    if mode.image and not (request.image or request.profile):
        raise UsageError(
            f"mode {mode.name} needs the IMAGE, a profile such as example.prod or the full name of an osimage"
        )
