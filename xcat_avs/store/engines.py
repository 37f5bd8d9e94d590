"""Which engine keeps the store at a URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Optional
from urllib.parse import unquote

from xcat_avs.store.protocol import Store
from xcat_avs.system.runner import Runner

FILE, OSTREE = "file://", "ostree:"
SERVED = re.compile(r"ostree:https?://")


def store(url: str, state: Path, runner: Runner, evidence: Callable[[], str]) -> Store:
    """The store at a URL. state: the directory of state. evidence(): signs that there was a store before, in words, or ""."""
    if SERVED.match(url):
        from xcat_avs.store.ostree.remote import RemoteStore

        return RemoteStore(url, runner, evidence, caches=state / "pulled")
    if url.startswith(OSTREE):
        from xcat_avs.store.ostree.store import OstreeStore

        return OstreeStore(url, runner, evidence)
    from xcat_avs.store.fsvs.store import FsvsStore

    return FsvsStore(url, state / "fsvs", runner, evidence)


def directory(url: str) -> Optional[Path]:
    """The directory of this machine that a store is in; None for one on a server."""
    for scheme in (FILE, OSTREE):
        if url.startswith(scheme) and not SERVED.match(url):
            return Path("/" + unquote(url[len(scheme) :]).lstrip("/"))
    return None
