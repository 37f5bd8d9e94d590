"""Recipes: which steps build an image, in which order, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xcat_avs import config, procedure
from xcat_avs.config import Settings
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.image import OsImage
from xcat_avs.procedure import Layer, Procedure


@dataclass(frozen=True)
class Step:
    """One step: the procedure that does it and the values of all its options."""

    name: str
    procedure: Procedure
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """The steps of an image, the settings it changes, and the files that say so."""

    steps: tuple[Step, ...]
    settings: Settings
    files: tuple[Path, ...] = field(default=())

    def text(self) -> str:
        """The recipe as it came out of all layers, as one ini file."""
        lines = ["[recipe]", f"steps = {', '.join(step.name for step in self.steps)}"]
        for step in self.steps:
            if step.options:
                lines += ["", f"[{step.name}]"]
                lines += [f"{name} = {option_text(value)}" for name, value in sorted(step.options.items())]
        return "\n".join(lines) + "\n"


def option_text(value: Any) -> str:
    """An option's value as a recipe writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def procedure_layers(image: OsImage, installdir: Path) -> list[Layer]:
    """Where procedures of an image are looked for, the most general first."""
    shipped = Path(__file__).resolve().parent / "procedures"
    site = installdir / "custom/avs"
    chain = ("common", *image.version.chain)
    layers = [Layer(f"shipped {name}", shipped / name, trusted=True) for name in chain]
    layers += [Layer(f"site {name}", site / "procedures" / name) for name in chain]
    return [*layers, Layer(f"image {image.profile}", site / "images" / image.profile)]


def recipe_files(image: OsImage, installdir: Path) -> list[Path]:
    """The recipe files of an image that are there, the most general first."""
    chain = ("default", *image.version.chain)
    site = installdir / "custom/avs"
    paths = [config.share_dir() / "recipes" / f"{name}.conf" for name in chain]
    paths += [site / "recipes" / f"{name}.conf" for name in chain]
    paths.append(site / "images" / image.profile / "recipe.conf")
    return [path for path in paths if path.is_file()]


CHANGEABLE = ("image", "pack")  # the sections of avs.conf that a recipe may change


def settings(image: OsImage, installdir: Path, base: Settings) -> Settings:
    """base with what the recipe of an image changes in it; the steps are not looked at."""
    try:
        files = recipe_files(image, installdir)
    except AvsError:
        return base  # an osvers that nothing can build, yet a tag of it can be packed
    for path in files:
        _refuse_if_writable(path)
        found = config.sections(config.read_ini(path))
        base = config.overlay(base, {name: found[name] for name in CHANGEABLE if name in found}, str(path))
    return base


def _refuse_if_writable(path: Path) -> None:
    if not path.is_relative_to(config.share_dir()):
        procedure.refuse_if_writable(path)


def load(image: OsImage, installdir: Path, base: Settings) -> Recipe:
    """Read the recipe of an image through its layers.

    Raises AvsError, naming the file, for an unknown step, option or setting.
    """
    files = recipe_files(image, installdir)
    steps: tuple[str, ...] = ()
    steps_from = ""
    options: dict[str, dict[str, tuple[str, str]]] = {}  # step -> option -> (text, file)
    layers = procedure_layers(image, installdir)
    for path in files:
        _refuse_if_writable(path)
        for section, items in config.sections(config.read_ini(path)).items():
            if section == "recipe":
                for name, text in items.items():
                    if name != "steps":
                        raise AvsError(
                            f"{path}: unknown setting {name!r} in [recipe]{nearest(name, ['steps'])}; there is steps"
                        )
                    steps, steps_from = config.typed(text, (), f"{path}: steps"), str(path)
            elif section in config.SECTIONS:
                if section not in CHANGEABLE:
                    names = ", ".join(items)
                    raise AvsError(f"{path}: a recipe cannot set {names} in [{section}]; that belongs in avs.conf")
            else:
                options.setdefault(section, {}).update({name: (text, str(path)) for name, text in items.items()})
    changed = settings(image, installdir, base)
    return Recipe(_steps(steps, steps_from, options, layers), changed, tuple(files))


def _steps(names: tuple[str, ...], origin: str, options: Mapping[str, Mapping[str, tuple[str, str]]],
           layers: list[Layer]) -> tuple[Step, ...]:  # fmt: skip
    if not names:
        raise AvsError("no recipe names any steps")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AvsError(f"{origin}: step {twice[0]!r} is named twice")
    steps = []
    for name in names:
        try:
            found = procedure.find(name, layers)
        except NotFoundError as err:
            raise err.prefixed(f"{origin}: ") from None
        values = {option.name: option.default for option in found.options.values()}
        for key, (text, path) in options.get(name, {}).items():
            if key not in found.options:
                there = ", ".join(found.options) or "none"
                raise AvsError(
                    f"{path}: procedure {name!r} has no option {key!r}{nearest(key, found.options)}; it has {there}"
                )
            values[key] = config.typed(text, found.options[key].default, f"{path}: [{name}] {key}")
        steps.append(Step(name, found, values))
    # A section for a step that this recipe leaves out is fine; one for a procedure that does not exist is a typo.
    for section in options.keys() - set(names):
        if section not in procedure.known(layers):
            path = next(iter(options[section].values()), ("", "a recipe"))[1]
            raise AvsError(f"{path}: unknown procedure [{section}]{nearest(section, procedure.known(layers))}")
    return tuple(steps)
