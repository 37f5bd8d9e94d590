"""The modes of avsimage, one module each: MODE says what it takes, its run() does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable

from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site


@dataclass(frozen=True)
class Mode:
    """takes: field of Request -> its help in this mode. needs: those that must be given.

    values: field of Request -> how its value is called here, where that differs from the other modes.
    private: builds or mounts, so it runs as root in a private namespace.
    """

    name: str
    summary: str
    run: Callable[[Request, Site], Report]
    takes: Mapping[str, str]
    needs: tuple[str, ...] = ()
    alias: str = ""
    private: bool = False
    image: bool = True  # whether IMAGE must be given
    values: Mapping[str, str] = field(default_factory=dict)


def table() -> dict[str, Mode]:
    """All modes by name, in the order of the usage."""
    from xcat_avs.modes import create, diff, env, list_tags, log, pack, rollback, show, status, steps, tag, verify

    modules = (create, tag, list_tags, pack, rollback, status, show, log, diff, verify, steps, env)
    return {module.MODE.name: module.MODE for module in modules}
