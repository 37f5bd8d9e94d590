"""Definitions whose osimages know what the site calls its distributions ([osvers] of avs.conf)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xcat_avs.definitions import Definitions, Node
from xcat_avs.image import OsImage, OsNames


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
