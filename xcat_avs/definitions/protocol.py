"""What every source of osimage definitions can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.osvers import OsNames
from xcat_avs.errors import AvsError


@dataclass(frozen=True)
class Node:
    """What is known of a node. provmethod: the osimage it boots. netboot: by which boot loader, "" where nobody says.

    service: the service nodes that it boots from, a comma list, where these hold copies of their own;
    copies: of what, INSTALLDIR or TFTPDIR or both.
    """

    provmethod: str = ""
    netboot: str = ""
    service: str = ""
    copies: tuple[str, ...] = ()


class Definitions(Protocol):
    """A source of osimage definitions: a stanza file, or the xCAT tables."""

    @property
    def installdir(self) -> Path:
        """xCAT's INSTALLDIR."""

    @property
    def tftpdir(self) -> Path:
        """xCAT's TFTPDIR."""

    @property
    def xcat(self) -> bool:
        """Whether xCAT itself is there: its genimage builds and its packimage packs."""

    def describe(self) -> str:
        """The source in words, for reports."""

    def osimages(self) -> Mapping[str, OsImage]:
        """All osimages by name. Raises AvsError when the source cannot be read."""

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        """Read the osimages anew, which something else may have changed; where that fails, those read before still count.

        timeout: seconds, 0 for the usual. bypass: without xCAT's daemon, which only root may. Raises AvsError.
        """

    def nodes(self) -> Mapping[str, Node]:
        """Every node, by name."""


def chdef(definitions: Definitions, image: OsImage, change: str) -> str:
    """How the admin changes an osimage: `attribute=value`."""
    return f"`chdef -t osimage {image.name} {change}`" if definitions.xcat else f"{change} in {image.origin}"


@dataclass(frozen=True)
class NamedDefinitions:
    """Another source, with the names handed to each osimage of it.

    The names may stand in a file below INSTALLDIR, which the other source has to tell first.
    """

    source: Definitions
    names: OsNames

    @property
    def installdir(self) -> Path:
        return self.source.installdir

    @property
    def tftpdir(self) -> Path:
        return self.source.tftpdir

    @property
    def xcat(self) -> bool:
        return self.source.xcat

    def describe(self) -> str:
        return self.source.describe()

    def osimages(self) -> Mapping[str, OsImage]:
        return {name: replace(image, os_names=self.names) for name, image in self.source.osimages().items()}

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        self.source.reload(timeout, bypass)

    def nodes(self) -> Mapping[str, Node]:
        return self.source.nodes()


@dataclass(frozen=True)
class Unread:
    """A source that cannot be read. Whoever asks it for definitions gets the error that says why."""

    error: AvsError
    installdir: Path
    tftpdir: Path
    xcat: bool

    def describe(self) -> str:
        return "no definitions"

    def osimages(self) -> Mapping[str, OsImage]:
        raise self.error

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        raise self.error

    def nodes(self) -> Mapping[str, Node]:
        raise self.error
