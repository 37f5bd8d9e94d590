"""The files of recipes: where they are, and which of them make the recipe of an image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.settings import sections, share_dir
from xcat_avs.system import trust

DEFAULT = "default"  # the recipe of every image
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class RecipeFile:
    """One recipe file as it was read: section -> name -> text."""

    path: Path
    sections: Mapping[str, Mapping[str, str]]


def homes(installdir: Path) -> tuple[Path, Path]:
    """The directories of recipes: as shipped, and the site's."""
    return share_dir() / "recipes", installdir / "custom/avs/recipes"


def named_files(name: str, image: OsImage, installdir: Path) -> list[Path]:
    """The files of a recipe that are there, the most general first: NAME.conf, NAME.FAMILY.conf, ...

    Those of the default recipe after the first are called FAMILY.conf, ...
    """
    chain = [
        f"{name}.conf",
        *(f"{item}.conf" if name == DEFAULT else f"{name}.{item}.conf" for item in image.version.chain),
    ]
    paths = [home / item for home in homes(installdir) for item in chain]
    return [path for path in paths if path.is_file()]


def recipe_files(image: OsImage, installdir: Path) -> list[RecipeFile]:
    """The recipe files of an image, the most general first; those of a base stand before the file that names it.

    Each is read once. Raises AvsError for a base that is not there, or that comes back to itself.
    """
    own = installdir / "custom/avs/images" / image.profile / "recipe.conf"
    found: list[RecipeFile] = []
    read: dict[Path, RecipeFile] = {}

    def add(path: Path, names: tuple[str, ...]) -> None:
        if path not in read:
            _refuse_if_writable(path)
            read[path] = RecipeFile(path, sections(settings.read_ini(path)))
        base = read[path].sections.get("recipe", {}).get("base", "").strip()
        if base:
            for file in _base_files(base, names, path, image, installdir):
                add(file, (*names, base))
        found.append(read[path])

    for path in named_files(DEFAULT, image, installdir):
        add(path, (DEFAULT,))
    if own.is_file():
        add(own, (image.profile + "/recipe.conf",))
    return found


def _base_files(base: str, names: tuple[str, ...], path: Path, image: OsImage, installdir: Path) -> list[Path]:
    """The files of the recipe that path names as its base. names: those that have led to path."""
    if base in names:
        circle = " -> ".join([*names[names.index(base) :], base])
        raise AvsError(f"{path}: the recipe {base} is its own base: {circle}")
    files = named_files(base, image, installdir) if NAME.fullmatch(base) else []
    if not files:
        there = known_recipes(image, installdir)
        raise NotFoundError(
            f"{path}: unknown recipe {base!r} as base{nearest(base, there)}; there are {', '.join(there)}"
        )
    return files


def known_recipes(image: OsImage, installdir: Path) -> list[str]:
    """The recipes that can be a base for an image."""
    stems = {path.name.split(".")[0] for home in homes(installdir) for path in home.glob("*.conf")}
    return sorted(name for name in stems - {DEFAULT, *image.version.chain} if named_files(name, image, installdir))


def _refuse_if_writable(path: Path) -> None:
    if not path.is_relative_to(share_dir()):
        trust.refuse(path)
