"""Where osimage definitions come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xcat_avs.image import OsImage


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
