"""Definitions in an xCAT stanza file: what `lsdef -t osimage -z` prints and `mkdef -z` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Node
from xcat_avs.errors import AvsError, SetupError
from xcat_avs.system import trust

HEADER = re.compile(r"(\S[^=]*?):\s*")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")


def parse(text: str, origin: str) -> dict[str, OsImage]:
    """Every osimage stanza of a text; objects of other types are passed over.

    A line is a comment (`#`), a header (`NAME:`) or `ATTRIBUTE=VALUE`; the value is raw up to
    the end of the line. Raises AvsError with origin and line number for anything else.
    """
    stanzas: dict[str, tuple[int, dict[str, str]]] = {}
    current: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{origin}, line {number}"
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if "\0" in line:
            raise AvsError(f"{where}: a NUL byte; this is no stanza file")
        header = HEADER.fullmatch(line.rstrip("\r"))
        if header and not line[0].isspace():
            name = header.group(1)
            if name in stanzas:
                raise AvsError(f"{where}: {name!r} is defined a second time (first in line {stanzas[name][0]})")
            current = {}
            stanzas[name] = (number, current)
            continue
        attribute, equals, value = stripped.partition("=")
        attribute = attribute.strip()
        if not equals or not NAME.fullmatch(attribute):
            raise AvsError(f"{where}: {stripped!r} is neither NAME: nor ATTRIBUTE=VALUE")
        if not name:
            raise AvsError(f"{where}: {stripped!r} stands before the first NAME:")
        if attribute in current:
            raise AvsError(f"{where}: {name!r} sets {attribute!r} a second time")
        current[attribute] = value.strip()
    images = {}
    for name, (number, attributes) in stanzas.items():
        if "objtype" not in attributes:
            raise AvsError(f"{origin}, line {number}: {name!r} has no objtype=; an osimage has objtype=osimage")
        if attributes.pop("objtype") == "osimage":
            images[name] = OsImage(name, attributes, f"{origin}, line {number}")
    return images


@dataclass(frozen=True)
class StanzaDefinitions:
    """The standalone source: a stanza file, or every `*.stanza` file of a directory."""

    path: Path
    installdir: Path
    tftpdir: Path
    xcat: bool = False

    def describe(self) -> str:
        return f"{self.path} (without xCAT)"

    def osimages(self) -> Mapping[str, OsImage]:
        images: dict[str, OsImage] = {}
        for path in self._files():
            trust.refuse(path)
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as err:
                raise SetupError(f"{path} is not UTF-8 text (byte {err.start})") from None
            except OSError as err:
                raise SetupError(f"cannot read the osimage definitions in {path}: {err.strerror}") from None
            for name, image in parse(text, str(path)).items():
                if name in images:
                    raise AvsError(f"{image.origin}: {name!r} is defined in {images[name].origin} already")
                images[name] = image
        return images

    def reload(self, timeout: float = 0, bypass: bool = False) -> None:
        pass  # the file is read at every call

    def nodes(self) -> Mapping[str, Node]:
        return {}  # nodes are known to xCAT only

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        files = sorted(self.path.glob("*.stanza"))
        if not files:
            raise SetupError(f"no osimage definitions: {self.path} holds no *.stanza file")
        return files
