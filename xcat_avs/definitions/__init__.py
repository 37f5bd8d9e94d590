"""Where osimage definitions come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from xcat_avs.image import OsImage


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

    def reload(self) -> None:
        """Read anew what something else may have changed."""

    def nodes(self) -> Mapping[str, str]:
        """Every node and its provmethod, the osimage it boots."""
