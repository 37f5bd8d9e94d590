"""Recipes: which steps and add-ons build an image, in which order, with which options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.recipes import procedure
from xcat_avs.recipes.procedure import Layer, Option, Procedure
from xcat_avs.settings import Settings, overlay_settings, sections, share_dir
from xcat_avs.system import trust

DEFAULT = "default"  # the recipe of every image
KEYS = ("base", "steps", "steps_remove", "steps_add", "addons")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
PLACE = re.compile(r"(\S+)\s+(after|before)\s+(\S+)")
ADDON = "addon "  # what the section of an add-on's options begins with
# What every add-on can be told besides its own options.
ADDON_OPTIONS = {
    "exclude": Option(
        "exclude",
        ("var/cache/apt", "var/cache/dnf", "var/cache/yum", "var/cache/ldconfig", "var/cache/debconf/*-old", "var/lib/apt/lists",
         "var/lib/dpkg/*-old", "var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/dnf*", "var/log/hawkey.log",
         "tmp", "var/tmp"),
        "patterns, as those of ctx.glob: files that match, or are below what matches, are left out",
    )
}  # fmt: skip
CHANGEABLE = ("image", "pack")  # the sections of avs.conf that a recipe may change


@dataclass(frozen=True)
class Step:
    """One step or add-on: the procedure that does it, the values of all its options, and the recipe that names it."""

    name: str
    procedure: Procedure
    options: Mapping[str, Any]
    recipe: Optional[Path] = None


@dataclass(frozen=True)
class Recipe:
    """The steps and add-ons of an image, the settings it changes, and the files that say so."""

    steps: tuple[Step, ...]
    settings: Settings
    files: tuple[Path, ...] = field(default=())
    addons: tuple[Step, ...] = field(default=())

    def text(self) -> str:
        """The recipe as it came out of all layers, as one ini file."""
        lines = ["[recipe]", f"steps = {', '.join(step.name for step in self.steps)}"]
        lines += [f"addons = {', '.join(addon.name for addon in self.addons)}"] if self.addons else []
        for prefix, steps in (("", self.steps), (ADDON, self.addons)):
            for step in steps:
                if step.options:
                    lines += ["", f"[{prefix}{step.name}]"]
                    lines += [f"{name} = {option_text(value)}" for name, value in sorted(step.options.items())]
        return "\n".join(lines) + "\n"


def option_text(value: Any) -> str:
    """An option's value as a recipe writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def procedure_layers(image: OsImage, installdir: Path, addons: bool = False) -> list[Layer]:
    """Where procedures of an image, or those of its add-ons, are looked for, the most general first."""
    kind = "addons" if addons else "procedures"
    shipped = Path(__file__).resolve().parent.parent / kind
    site = installdir / "custom/avs"
    chain = ("common", *image.version.chain)
    layers = [Layer(f"shipped {name}", shipped / name, trusted=True) for name in chain]
    layers += [Layer(f"site {name}", site / kind / name) for name in chain]
    own = site / "images" / image.profile
    return [*layers, Layer(f"image {image.profile}", own / "addons" if addons else own)]


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


def recipe_files(image: OsImage, installdir: Path) -> list[Path]:
    """The recipe files of an image, the most general first; those of a base stand before the file that names it.

    Raises AvsError for a base that is not there, or that comes back to itself.
    """
    own = installdir / "custom/avs/images" / image.profile / "recipe.conf"
    found: list[Path] = []

    def add(path: Path, names: tuple[str, ...]) -> None:
        _refuse_if_writable(path)
        base = sections(settings.read_ini(path)).get("recipe", {}).get("base", "").strip()
        if base:
            if base in names:
                circle = " -> ".join([*names[names.index(base) :], base])
                raise AvsError(f"{path}: the recipe {base} is its own base: {circle}")
            files = named_files(base, image, installdir) if NAME.fullmatch(base) else []
            if not files:
                there = known_recipes(image, installdir)
                raise NotFoundError(
                    f"{path}: unknown recipe {base!r} as base{nearest(base, there)}; there are {', '.join(there)}"
                )
            for file in files:
                add(file, (*names, base))
        found.append(path)

    for path in named_files(DEFAULT, image, installdir):
        add(path, (DEFAULT,))
    if own.is_file():
        add(own, (image.profile + "/recipe.conf",))
    return found


def known_recipes(image: OsImage, installdir: Path) -> list[str]:
    """The recipes that can be a base for an image."""
    stems = {path.name.split(".")[0] for home in homes(installdir) for path in home.glob("*.conf")}
    return sorted(name for name in stems - {DEFAULT, *image.version.chain} if named_files(name, image, installdir))


def image_settings(image: OsImage, installdir: Path, base: Settings) -> Settings:
    """base with what the recipe of an image changes in it; the steps are not looked at."""
    try:
        _ = image.version
    except AvsError:
        return base  # an osvers that nothing can build, yet a tag of it can be packed
    for path in recipe_files(image, installdir):
        found = sections(settings.read_ini(path))
        base = overlay_settings(base, {name: found[name] for name in CHANGEABLE if name in found}, str(path))
    return base


def _refuse_if_writable(path: Path) -> None:
    if not path.is_relative_to(share_dir()):
        trust.refuse(path)


Named = dict[str, Path]  # step -> the recipe that names it, in order
Texts = dict[str, dict[str, tuple[str, Path]]]  # step -> option -> its text and the recipe that has it


def load(image: OsImage, installdir: Path, base: Settings) -> Recipe:
    """Read the recipe of an image through its layers.

    Raises AvsError, naming the file, for an unknown step, add-on, option or setting.
    """
    files = recipe_files(image, installdir)
    steps: Named = {}
    addons: Named = {}
    options: Texts = {}
    for path in files:
        for section, items in sections(settings.read_ini(path)).items():
            if section == "recipe":
                for name in items:
                    if name not in KEYS:
                        raise AvsError(
                            f"{path}: unknown setting {name!r} in [recipe]{nearest(name, KEYS)}; there are {', '.join(KEYS)}"
                        )
                steps = _changed(steps, items, path)
                if "addons" in items:
                    addons = _listed(items["addons"], path, "add-on")
            elif section in settings.SECTIONS:
                if section not in CHANGEABLE:
                    names = ", ".join(items)
                    raise AvsError(f"{path}: a recipe cannot set {names} in [{section}]; that belongs in avs.conf")
            else:
                options.setdefault(section, {}).update({name: (text, path) for name, text in items.items()})
    if not steps:
        raise AvsError("no recipe names any steps")
    changed = image_settings(image, installdir, base)
    parts = {name: texts for name, texts in options.items() if not name.startswith(ADDON)}
    extras = {name[len(ADDON) :].strip(): texts for name, texts in options.items() if name.startswith(ADDON)}
    layers, addon_layers = (procedure_layers(image, installdir, addons=kind) for kind in (False, True))
    for section in parts.keys() & set(procedure.known(addon_layers)) - set(procedure.known(layers)):
        path = next((item[1] for item in parts[section].values()), Path("a recipe"))
        raise AvsError(f"{path}: [{section}] is the section of a step, and {section} is an add-on: [{ADDON}{section}]")
    found = _found(steps, parts, layers, "procedure")
    added = _found(addons, extras, addon_layers, "add-on")
    return Recipe(found, changed, tuple(files), added)


def _listed(text: str, path: Path, kind: str) -> Named:
    names = settings.typed(text, (), f"{path}: {kind}s")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AvsError(f"{path}: {kind} {twice[0]!r} is named twice")
    return dict.fromkeys(names, path)


def _changed(steps: Named, items: Mapping[str, str], path: Path) -> Named:
    """The steps after one file: a list of its own, then what it takes away, then what it puts in."""
    if "steps" in items:
        steps = _listed(items["steps"], path, "step")
    for name in _listed(items.get("steps_remove", ""), path, "step"):
        if name not in steps:
            raise AvsError(f"{path}: steps_remove names {name!r}, which is no step{nearest(name, steps)}")
        steps = {step: origin for step, origin in steps.items() if step != name}
    for item in items.get("steps_add", "").replace("\n", ",").split(","):
        if not item.strip():
            continue
        match = PLACE.fullmatch(item.strip())
        if match is None:
            raise AvsError(f"{path}: steps_add has {item.strip()!r}; it takes `STEP after STEP` or `STEP before STEP`")
        name, where, other = match.groups()
        if name in steps:
            raise AvsError(f"{path}: steps_add names {name!r}, which is a step already, of {steps[name]}")
        if other not in steps:
            raise AvsError(
                f"{path}: steps_add puts {name!r} {where} {other!r}, which is no step{nearest(other, steps)}"
            )
        order = list(steps.items())
        place = [step for step, _ in order].index(other) + (where == "after")
        steps = dict([*order[:place], (name, path), *order[place:]])
    return steps


def _found(named: Named, options: Texts, layers: list[Layer], kind: str) -> tuple[Step, ...]:
    """The procedures of the names, with their options."""
    steps = []
    for name, origin in named.items():
        try:
            found = procedure.find(name, layers)
        except NotFoundError as err:
            raise NotFoundError(f"{origin}: {err.text.replace('procedure', kind, 1)}") from None
        if kind == "add-on":
            found = replace(found, options={**ADDON_OPTIONS, **found.options})
        values = {option.name: option.default for option in found.options.values()}
        for key, (text, path) in options.get(name, {}).items():
            if key not in found.options:
                there = ", ".join(found.options) or "none"
                raise AvsError(
                    f"{path}: {kind} {name!r} has no option {key!r}{nearest(key, found.options)}; it has {there}"
                )
            values[key] = settings.typed(text, found.options[key].default, f"{path}: [{name}] {key}")
        steps.append(Step(name, found, values, origin))
    # A section for a step that this recipe leaves out is fine; one for a procedure that does not exist is a typo.
    known = procedure.known(layers)
    for section in options.keys() - set(named) - set(known):
        path = next((item[1] for item in options[section].values()), Path("a recipe"))
        raise AvsError(f"{path}: unknown {kind} [{section}]{nearest(section, known)}")
    return tuple(steps)
