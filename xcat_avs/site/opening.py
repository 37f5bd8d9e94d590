"""Read what an installation is: its settings, and the source of its definitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.protocol import Definitions, NamedDefinitions, Unread
from xcat_avs.definitions.stanza import StanzaDefinitions
from xcat_avs.definitions.tables import XcatDefinitions
from xcat_avs.errors import AvsError, SetupError
from xcat_avs.recipes import origins
from xcat_avs.request import Request
from xcat_avs.settings import Settings, load_settings, load_site_settings, overlay_settings
from xcat_avs.system import trust
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.xcat import programs

PATIENCE = 60  # seconds for what check asks, where no timeout is set
DIRECTORIES = ("builds", "staging", "checkouts", "locks", "journal", "fsvs", "runs", "boots")  # of the state
# Modes whose answer is not in the directories of the state and of the logs.
OF_THE_STORE = ("env", "steps", "list-tags", "log", "diff", "files", "cat")


@dataclass(frozen=True)
class Opened:
    """What was read."""

    settings: Settings
    definitions: Definitions


def read(request: Request, progress: Progress) -> Opened:
    """The installation as a mode works with it. Raises SetupError."""
    with _set_up():
        settings = load_settings()
        definitions = source(settings, request.mode in ("status", "images"), progress)
        settings = load_site_settings(settings, definitions.installdir)
        try:
            trust.refuse_foreign(settings.state, DIRECTORIES)
            trust.refuse_foreign(settings.logs)
        except PermissionError:  # of somebody else than root, who needs neither for these
            if request.mode.replace("_", "-") not in OF_THE_STORE or request.resume:
                raise
    if request.store:
        settings = overlay_settings(settings, {"paths": {"store": request.store}}, "-s")
    if settings.os_names:
        definitions = NamedDefinitions(definitions, settings.os_names)
    progress.verbose(f"definitions: {definitions.describe()}")
    return Opened(settings, definitions)


def as_it_is(request: Request, progress: Progress) -> Opened:
    """As much of it as can be read, for check: definitions that cannot be read are an error for whoever asks for them."""
    settings = origins.read().settings
    found: Definitions
    try:
        found = source(settings, True, progress)
        settings = origins.read(found.installdir).settings
        if settings.os_names:
            found = NamedDefinitions(found, settings.os_names)
    except AvsError as err:
        xcat = settings.xcat == "yes" or (settings.xcat == "auto" and programs.program("lsdef") is not None)
        installdir, tftpdir = Path(settings.installdir or "/install"), Path(settings.tftpdir or "/tftpboot")
        found = Unread(err, installdir, tftpdir, xcat=xcat)
    return Opened(replace(settings, store=request.store or settings.store, timeout=settings.timeout or PATIENCE), found)


def source(settings: Settings, nodes: bool, progress: Optional[Progress] = None) -> Definitions:
    """The source of definitions. A broken or unusable xCAT is an error, never a silent fall-back.

    nodes: whether the nodes will be asked for as well.
    """
    if settings.xcat == "yes" or (settings.xcat == "auto" and programs.program("lsdef")):
        tables = ("osimage", "site", *(["node"] if nodes else []))
        return XcatDefinitions(
            programs.need("lsdef"), settings.installdir, settings.tftpdir, tables, runner=Runner(progress=progress)
        )
    if not settings.definitions:
        raise SetupError(
            "no osimage definitions: xCAT is not used here, and [xcat] definitions is not set in avs.conf; name a stanza file there"
        )
    return StanzaDefinitions(
        Path(settings.definitions), Path(settings.installdir or "/install"), Path(settings.tftpdir or "/tftpboot")
    )


@contextmanager
def _set_up() -> Iterator[None]:
    """Any error is one of the installation."""
    try:
        yield
    except AvsError as err:
        raise SetupError(err.text, err.tail, err.log) from None
