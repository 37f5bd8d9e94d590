"""Where each setting comes from, and all that is wrong with the files, read as far as they can be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.recipes.files import recipe_files
from xcat_avs.recipes.recipe import CHANGEABLE
from xcat_avs.settings import FIELDS, Settings
from xcat_avs.system import trust


@dataclass
class Origins:
    """settings: what could be read of them. files: those that were read, the last one wins.

    origin: (section, name) -> the file that says so, for what a file says other than the default. problems: a sentence each.
    """

    settings: Settings = field(default_factory=Settings)
    files: list[Path] = field(default_factory=list)
    origin: dict[tuple[str, str], Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, path: Path, sections: Optional[tuple[str, ...]] = None) -> None:
        """Lay a file over what was read before. sections: those of it that are settings; None for all."""
        try:
            if not path.is_relative_to(settings.share_dir()):
                trust.refuse(path)
            read = settings.sections(settings.read_ini(path))
        except AvsError as err:
            self.problems.append(err.text)
            return
        self.files.append(path)
        for section, items in read.items():
            for name, text in items.items() if sections is None or section in sections else ():
                self._take(path, section, (name, text))

    def _take(self, path: Path, section: str, item: tuple[str, str]) -> None:
        """One line of a file; one that is wrong leaves the others."""
        try:
            self.settings = settings.overlay_settings(self.settings, {section: dict([item])}, str(path))
            self.origin[section, item[0]] = path
        except AvsError as err:
            self.problems.append(err.text)

    def changed(self) -> Mapping[str, tuple[str, str]]:
        """`[section] name` of each setting that is not the default -> its value and its file."""
        found = {}
        for (section, name), path in self.origin.items():
            known = FIELDS.get((section, name))
            value = getattr(self.settings, known.name) if known else dict(self.settings.os_names).get(name, "")
            if known is None or value != known.default:
                found[f"[{section}] {name}"] = (_text(value), str(path))
        return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def read(installdir: Optional[Path] = None, image: Optional[OsImage] = None) -> Origins:
    """The settings of a site, as far as they can be read. installdir: where the site's own are, if that is known.

    image: with those that its recipes change.
    """
    found = Origins()
    only = os.environ.get("AVS_CONF", "")
    try:
        shipped = settings.share_dir() / "avs.conf"
    except AvsError as err:
        found.problems.append(err.text)
        return found
    own = [settings.ETC_CONF, *([installdir / "custom/avs/avs.conf"] if installdir else [])]
    for path in [shipped, *([Path(only)] if only else [path for path in own if path.exists()])]:
        found.add(path)
    try:
        for file in recipe_files(image, installdir) if image and installdir else ():
            found.add(file.path, CHANGEABLE)
    except AvsError as err:
        found.problems.append(err.text)
    return found
