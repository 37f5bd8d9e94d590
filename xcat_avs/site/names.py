"""Names for a shell that completes words. Each function asks xCAT once at most, and not for long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage, check_tag_name
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.definitions.tables import XcatDefinitions
from xcat_avs.errors import AvsError
from xcat_avs.settings import load_settings, load_site_settings
from xcat_avs.site import opening
from xcat_avs.store import engines
from xcat_avs.system.runner import Runner

PATIENCE = 10.0  # seconds for one program
Row = Sequence[str]  # name, osvers, osarch, profile


def _definitions() -> Definitions:
    found = opening.source(load_settings(), nodes=False)
    if isinstance(found, XcatDefinitions):
        return replace(found, together=(), runner=Runner(timeout=PATIENCE))
    return found


def osimages() -> list[Row]:
    """Those that can be stored."""
    return [
        (image.name, image.osvers, image.osarch, image.profile)
        for image in _definitions().osimages().values() if image.provmethod in ("netboot", "statelite", "")
    ]  # fmt: skip


def asks_for_installdir() -> bool:
    """Whether xCAT has to be asked for INSTALLDIR."""
    return not os.environ.get("AVS_CONF") and not load_settings().installdir and _definitions().xcat


def installdir() -> str:
    """INSTALLDIR, where the settings of the site are; "" where those are not read."""
    return "" if os.environ.get("AVS_CONF") else str(_definitions().installdir)


def only(rows: Sequence[Row], wanted: str, osvers: str, osarch: str) -> Optional[Row]:
    """The one osimage that a profile or a full name means, or None."""
    found = [row for row in rows if row[0] == wanted] or [
        row for row in rows if row[3] == wanted and osvers in ("", row[1]) and osarch in ("", row[2])
    ]
    return found[0] if len(found) == 1 else None


def tags(row: Row, url: str, directory: str) -> list[str]:
    """The tags of an osimage, the newest first. directory: INSTALLDIR."""
    settings = load_settings()
    if directory:
        settings = load_site_settings(settings, Path(directory))
    store = engines.store(url or settings.store, settings.state, Runner(timeout=PATIENCE), evidence=lambda: "")
    image = OsImage(row[0], dict(zip(("osvers", "osarch", "profile"), row[1:])))
    found = []
    for tag in reversed(store.tags(image.check())):
        with suppress(AvsError):
            found.append(check_tag_name(tag.name))
    return found
